"""The broker configuration in ``deploy/``, with other paths and ports and otherwise unchanged."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rollwave.mqtt.broker import Broker
from tests.servers import Mosquitto

DEPLOY = Path(__file__).parents[1] / "deploy"
ENGINE = "rollwave"
DEVICES = ("north/device/dev-1", "north/device/dev-2", "south/device/dev-1", "Süd 1/device/gerät@7 a..b")


def password(user: str) -> str:
    return f"secret of {user}"


class ShippedMosquitto(Mosquitto):
    """``deploy/mosquitto`` over TLS, with real password entries and a certificate made for the test."""

    def __init__(
        self, folder: Path, *, acl: str | None = None, retain: bool = False, certificates: bool = False
    ) -> None:
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
        if certificates:
            text += f"cafile {self.ca_cert}\nrequire_certificate true\nuse_identity_as_username true\n"
            text = re.sub(r"(?m)^password_file .*$", "", text)
        self._config.write_text(f"{text}user {pwd.getpwuid(os.geteuid()).pw_name}\n")

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    def login(self, user: str) -> Broker:
        return Broker.from_url(self.url, username=user, password=password(user), ca_cert=str(self.ca_cert))


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate and its key, each in a PEM file."""

    cert: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"MQTT_CLIENT_CERT": str(self.cert), "MQTT_CLIENT_KEY": str(self.key)}


def client_certificate(folder: Path, user: str, *, passphrase: str = "") -> ClientCertificate:
    """A client certificate with the user's name as CN, signed by the key of the broker's own certificate."""
    name = user.replace("/", "-") + ("-secret" if passphrase else "")
    cert, key, request = (folder / f"{name}.{suffix}" for suffix in ("crt", "key", "csr"))
    closed = ("-aes-256-cbc", "-pass", f"pass:{passphrase}") if passphrase else ()
    _run(
        "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", *closed, "-out", str(key)
    )
    subject = ("-subj", f"/CN={user.replace('/', chr(92) + '/')}")
    _run(*("openssl", "req", "-new", "-key", str(key), "-passin", f"pass:{passphrase}", *subject, "-out", str(request)))
    _run(
        *("openssl", "x509", "-req", "-in", str(request), "-CA", str(folder / "server.crt")),
        *("-CAkey", str(folder / "server.key"), "-CAcreateserial", "-days", "2", "-out", str(cert)),
    )
    return ClientCertificate(cert, key)


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
