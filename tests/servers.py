"""Debian's servers, started for the tests: the oldest supported PostgreSQL, Mosquitto and PgBouncer."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from rollwave.embedded.broker import HOST
from rollwave.embedded.postgres import UNPRIVILEGED, EmbeddedPostgres
from rollwave.embedded.process import ServerProcess
from tests.ports import free_port

MEMORY = Path("/dev/shm")
ROOM = 6 << 30
"""Bytes that must be free in memory for the data of servers."""


def debian_postgres() -> Path | None:
    """The binaries of the oldest PostgreSQL installed on the system."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return next((path for path in found if (path / "initdb").exists()), None)


def debian_mosquitto() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for the data of servers. It is in memory if there is room: a new database is hundreds of files."""
    with_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    folder = Path(tempfile.mkdtemp(prefix="rollwave-tests-", dir=MEMORY if with_room else None))
    folder.chmod(0o755)  # The server may run as another user.
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def start_postgres(kind: str, folder: Path) -> EmbeddedPostgres:
    """A server that tests share, to be used with ``with``. It is not durable: a test must not crash it.

    ``kind``: ``embedded`` (PostgreSQL 18) or ``debian``.
    """
    bin_dir = None
    if kind == "debian":
        bin_dir = debian_postgres()
        assert bin_dir, "no PostgreSQL under /usr/lib/postgresql: scripts/system-packages installs it"
    settings = {"log_lock_waits": "on", "log_line_prefix": "%m [%p] %a %d ", "fsync": "off", "full_page_writes": "off"}
    settings |= {"max_wal_size": "256MB"}
    return EmbeddedPostgres(folder / kind, bin_dir=bin_dir, settings=settings)


@contextmanager
def crashable_postgres(bin_dir: Path | None = None, **settings: str) -> Iterator[EmbeddedPostgres]:
    """An empty server for one test, which may crash it."""
    with server_folder() as folder, EmbeddedPostgres(folder / "data", bin_dir=bin_dir, settings=settings) as server:
        yield server


class Mosquitto:
    """Debian's Mosquitto on a loopback port. It keeps its port and its sessions over restarts."""

    def __init__(self, folder: Path, *, config: str = "") -> None:
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} {HOST}\n"
            "allow_anonymous true\n"
            f"persistence true\npersistence_location {folder}/\n"
            "max_queued_messages 100000\nmax_inflight_messages 0\n"
            f"user {pwd.getpwuid(os.geteuid()).pw_name}\n{config}"
        )
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        program = debian_mosquitto()
        assert program, "mosquitto is not installed: scripts/system-packages installs it"
        self._process = ServerProcess([program, "-c", str(self._config)], log=self.log)
        self._process.wait_until(self._accepts, timeout=30.0, what="mosquitto")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the running server: SIGSTOP freezes it, SIGCONT continues it."""
        assert self.pid
        os.kill(self.pid, number)

    def reload(self) -> None:
        """Make it read its logins and its ACL again."""
        self.send_signal(signal.SIGHUP)

    def crash(self) -> None:
        """Kill it: everything since its last orderly stop is lost."""
        if self._process is not None:
            self._process.stop(signal.SIGKILL)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def small_disk(folder: Path, *, size: str = "256k") -> Iterator[Path]:
    """A small file system, like that of a device. Needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def debian_faketime() -> Path | None:
    """The library libfaketime, which shifts the clock of a process."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def debian_pgbouncer() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


class PgBouncer:
    """Debian's PgBouncer in transaction mode before a server, with fewer server connections than clients."""

    def __init__(self, folder: Path, server: str, *, connections: int = 4) -> None:
        self._port = free_port()
        self._server = urlsplit(server)
        self.log = folder / "pgbouncer.log"
        self._config = folder / "pgbouncer.ini"
        [host] = parse_qs(self._server.query)["host"]
        self._config.write_text(
            f"[databases]\n* = host={host} port=5432 user=postgres\n"
            f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {self._port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 500\n"
        )
        self._process: ServerProcess | None = None

    @property
    def statement_cache(self) -> int:
        """The number of prepared statements that a client may keep. PgBouncer supports them by default since 1.24."""
        program = debian_pgbouncer()
        assert program
        version_output = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        major, minor, *_ = version_output.split()[1].split(".")
        return 100 if (int(major), int(minor)) >= (1, 24) else 0

    @property
    def url(self) -> str:
        return self._server._replace(netloc=f"postgres@{HOST}:{self._port}", query="").geturl()

    def __enter__(self) -> Self:
        program = debian_pgbouncer()
        assert program, "pgbouncer is not installed: scripts/system-packages installs it"
        user = UNPRIVILEGED if os.geteuid() == 0 else None  # It does not run as root.
        self._config.parent.chmod(0o755)
        self._process = ServerProcess([program, str(self._config)], log=self.log, user=user)
        self._process.wait_until(self._accepts, timeout=10.0, what="pgbouncer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGINT)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self._port)) == 0
