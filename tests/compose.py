"""The stack of ``deploy/compose`` without containers: its files and commands, on servers of this machine.

Addresses between services become loopback ports, and paths in containers become paths in a folder. Everything else
is what ``docker compose`` would start.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from rollwave.embedded.postgres import UNPRIVILEGED, EmbeddedPostgres
from rollwave.embedded.process import ServerProcess
from rollwave.mqtt.broker import Broker
from tests.ports import free_port
from tests.servers import Mosquitto, debian_postgres
from tests.shipped import DEPLOY
from tests.support import environment

ME = f"{os.geteuid()}:{os.getegid()}"


class Stack:
    """A prepared copy of ``deploy/`` in ``folder``, with the keys installed, and the addresses of its services."""

    def __init__(self, folder: Path) -> None:
        generated = shutil.ignore_patterns("secrets", "demo", ".env")
        shutil.copytree(DEPLOY, folder / "deploy", ignore=generated)
        self.folder = folder / "deploy" / "compose"
        self.secrets, self.keys = self.folder / "secrets", folder / "keys"
        self.services: Mapping[str, Mapping[str, Any]] = read_compose()["services"]
        self.ports = {name: free_port() for name in ("postgres", "mosquitto", "serve", "worker", "artifacts")}
        self.prepare("--fleet")
        self.install_keys()

    def prepare(self, *arguments: str) -> str:
        """Run ``./prepare``, and return what it prints."""
        return _run(["./prepare", *arguments], self.folder)

    def install_keys(self) -> None:
        """Do the work of the job ``install-keys``."""
        script, service = self.folder / "install-keys.sh", self.services["install-keys"]
        assert service["command"] == ["/secrets", "/keys"]
        settings = {name: _postgres_user() if "POSTGRES" in name else ME for name in service["environment"]}
        settings |= {"ACL": str(DEPLOY / "mosquitto" / "acl"), "FLEET_ACL": str(self.folder / "mosquitto/fleet.acl")}
        _run(["sh", str(script), str(self.secrets), str(self.keys)], self.folder, **settings)

    def command(self, service: str) -> list[str]:
        """The arguments of ``rollwave`` in that service."""
        words: list[str] = [self._here(word) for word in self.services[service]["command"]]
        if "--port" in words:
            words[words.index("--port") + 1] = str(self.ports[service])
        return words

    def settings(self, service: str) -> dict[str, str]:
        """The service's environment: files of secrets first, then the variables of the compose file."""
        described = self.services[service]
        settings: dict[str, str] = {}
        for each in described.get("env_file", ()):
            text = (self.folder / (each if isinstance(each, str) else each["path"])).read_text()
            settings |= dict(line.split("=", 1) for line in text.splitlines())
        settings |= {name: str(value) for name, value in described.get("environment", {}).items()}
        return {name: self._here(value) for name, value in settings.items()}

    def login(self, user: str) -> Broker:
        """The broker, with the login ``user``."""
        lines = (self.secrets / "mosquitto.logins").read_text().splitlines()
        passwords = dict(line.rsplit(":", 1) for line in lines)
        ca_cert = str(self.secrets / "ca.crt")
        url = self._here("mqtts://mosquitto:8883")
        return Broker.from_url(url, username=user, password=passwords[user], ca_cert=ca_cert)

    def _here(self, text: str) -> str:
        """``text`` with the addresses and paths of this machine."""
        for pattern, here in (
            (r"\b(postgres|mosquitto):\d+", lambda found: f"localhost:{self.ports[found[1]]}"),
            (r"\b(serve|artifacts):8080", lambda found: f"127.0.0.1:{self.ports[found[1]]}"),
            (r"^0\.0\.0\.0$", lambda _: "127.0.0.1"),
            (r"/run/rollwave\b", lambda _: str(self.secrets)),
            (r"^/demo\b", lambda _: str(self.folder / "demo")),
        ):
            text = re.sub(pattern, here, text)
        return text


class StackMosquitto(Mosquitto):
    """Mosquitto with the configuration, certificate, logins and ACL of the stack."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack.folder)
        self.port = stack.ports["mosquitto"]
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
        for pattern, here in (
            (r"/etc/mosquitto/", f"{stack.keys}/mosquitto/"),
            (r"/var/lib/mosquitto/", f"{stack.keys}/mosquitto-data/"),
            (r"(?m)^listener 8883$", f"listener {self.port} 127.0.0.1"),
        ):
            text, count = re.subn(pattern, here, text)
            assert count, pattern
        self._config.write_text(f"{text}user {pwd.getpwuid(os.geteuid()).pw_name}\n")


@contextmanager
def stack_postgres(stack: Stack) -> Iterator[EmbeddedPostgres]:
    """Debian's PostgreSQL with the stack's options, initialised as at its first start."""
    bin_dir = debian_postgres()
    assert bin_dir, "no PostgreSQL under /usr/lib/postgresql: scripts/system-packages installs it"
    folder = Path(tempfile.mkdtemp(prefix="rollwave-tests-"))
    folder.chmod(0o755)  # The server may run as another user.
    try:
        shutil.copytree(stack.keys / "postgres", folder / "keys", copy_function=_copy_with_owner)
        _copy_owner(stack.keys / "postgres", folder / "keys")
        # A superuser logs in on the socket as the server's own user; the test is another one.
        hba, count = re.subn(r"(?m)^(local .*)peer$", r"\1trust", (stack.folder / "postgres/pg_hba.conf").read_text())
        assert count == 1
        (folder / "pg_hba.conf").write_text(hba)
        options = dict(word[2:].split("=", 1) for word in stack.services["postgres"]["command"][1:])
        here = {"/keys": str(folder / "keys"), "/etc/rollwave": str(folder)}
        for container, path in here.items():
            options = {name: value.replace(container, path) for name, value in options.items()}
        options |= {"listen_addresses": "localhost", "port": str(stack.ports["postgres"])}
        with EmbeddedPostgres(folder / "data", bin_dir=bin_dir, settings=options) as server:
            host = re.findall(r"host=([^&]+)", server.url)[0]
            _run(
                [str(stack.folder / "postgres/10-roles.sh")],
                stack.folder,
                **stack.settings("postgres"),
                PATH=f"{bin_dir}:{os.environ['PATH']}",
                PGHOST=host,
                PGPORT=str(stack.ports["postgres"]),
            )
            yield server
    finally:
        shutil.rmtree(folder)


class StackPrometheus:
    """Prometheus with the stack's configuration and alerts.

    It is given the processes' addresses instead of using DNS.
    """

    def __init__(self, stack: Stack) -> None:
        self.port = free_port()
        folder = stack.folder / "prometheus"
        config = yaml.safe_load((folder / "prometheus.yml").read_text())
        [job] = config["scrape_configs"]
        [source] = job.pop("dns_sd_configs")
        job["static_configs"] = [
            {"targets": [f"127.0.0.1:{stack.ports[name]}"], "labels": {"__meta_dns_name": name}}
            for name in source["names"]
        ]
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (folder / "here.yml").write_text(yaml.safe_dump(config))
        options = {"config.file": str(folder / "here.yml"), "storage.tsdb.path": str(folder / "data")}
        options |= {"web.listen-address": f"127.0.0.1:{self.port}"}
        self._server = ServerProcess(
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())], log=folder / "log"
        )
        self._server.wait_until(lambda: listens(self.port), timeout=30, what="Prometheus")

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that ``query`` returns now."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def stop(self) -> None:
        self._server.stop()


def read_compose() -> dict[str, Any]:
    """``compose.yaml``, with each variable replaced by its default."""
    text = (DEPLOY / "compose" / "compose.yaml").read_text()
    read: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return read


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _postgres_user() -> str:
    if os.geteuid() != 0:
        return ME
    nobody = pwd.getpwnam(UNPRIVILEGED)
    return f"{nobody.pw_uid}:{nobody.pw_gid}"


def _copy_with_owner(source: str, target: str) -> None:
    shutil.copy2(source, target)
    _copy_owner(Path(source), Path(target))


def _copy_owner(source: Path, target: Path) -> None:
    os.chown(target, source.stat().st_uid, source.stat().st_gid)


def _run(command: list[str], folder: Path, **settings: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(**settings), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
