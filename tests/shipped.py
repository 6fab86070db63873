"""The broker configuration in ``deploy/``, run as it is shipped, with its paths and ports put elsewhere."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from rollwave.mqtt.broker import Broker
from tests.servers import Mosquitto

DEPLOY = Path(__file__).parents[1] / "deploy"
ENGINE = "rollwave"
DEVICES = ("north/device/dev-1", "north/device/dev-2", "south/device/dev-1")


def password(user: str) -> str:
    return f"secret of {user}"


class ShippedMosquitto(Mosquitto):
    """``deploy/mosquitto`` over TLS, with real password entries and a certificate of the test's own."""

    def __init__(self, folder: Path, *, acl: str | None = None, retain: bool = False) -> None:
        super().__init__(folder)
        self.ca_cert = _certificate(folder)
        passwords = folder / "rollwave.passwords"
        passwords.touch(mode=0o600)
        for user in (ENGINE, *DEVICES):
            _run("mosquitto_passwd", "-b", str(passwords), user, password(user))
        shipped_acl = (DEPLOY / "mosquitto" / "acl").read_text()
        (folder / "rollwave.acl").write_text(shipped_acl if acl is None else acl)
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
        for pattern, here in (
            (r"/etc/mosquitto/(certs/)?", f"{folder}/"),
            (r"/var/lib/mosquitto/", f"{folder}/"),
            (r"(?m)^listener 8883$", f"listener {self.port} 127.0.0.1"),
            (r"(?m)^retain_available false$", f"retain_available {str(retain).lower()}"),
        ):
            text, count = re.subn(pattern, here, text)
            assert count, pattern
        self._config.write_text(f"{text}user {pwd.getpwuid(os.geteuid()).pw_name}\n")

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    def login(self, user: str) -> Broker:
        return Broker.from_url(self.url, username=user, password=password(user), ca_cert=str(self.ca_cert))


def _certificate(folder: Path) -> Path:
    certificate = folder / "server.crt"
    _run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(folder / "server.key"), "-out", str(certificate), "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
    )
    return certificate


def _run(*command: str) -> None:
    assert shutil.which(command[0]), f"{command[0]} is not installed: scripts/system-packages installs it"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
