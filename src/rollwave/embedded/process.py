"""Server processes that end with the program that started them."""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rollwave.errors import RollwaveError


class ServerProcess:
    """A child process in its own session: Ctrl-C in the terminal does not reach it, and its owner stops it.

    A second process, the watchdog, reads from a pipe of the owner. When the owner ends, also by SIGKILL, the pipe
    closes and the watchdog sends ``stop_signal`` to the server.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | int | None = None,
        group: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                env=env,
            )
        self._watchdog = subprocess.Popen(
            ["sh", "-c", f"read -r _; kill -{stop_signal.value} {self._server.pid}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def running(self) -> bool:
        return self._server.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, timeout: float, what: str) -> None:
        """Call ``ready`` until it returns true.

        Raises:
            RollwaveError: the process ended, or ``timeout`` seconds passed. The process is stopped.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running or time.monotonic() > deadline:
                self.stop()
                raise RollwaveError(f"{what} did not start: {self._last_log_line()}", hint=f"Its log is {self._log}.")
            time.sleep(0.02)

    def stop(self, stop_signal: signal.Signals | None = None, *, timeout: float = 30.0) -> None:
        """Stop the process and wait for its end. It is killed if that takes longer than ``timeout`` seconds."""
        try:
            if self.running:
                self._server.send_signal(stop_signal or self._stop_signal)
                self._server.wait(timeout)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        finally:
            self._watchdog.kill()
            self._watchdog.communicate()

    def _last_log_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"


class EmbeddedServer(ABC):
    """A server that runs inside ``with``."""

    _process: ServerProcess | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @abstractmethod
    def start(self) -> None:
        """Start the server. Does nothing if it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server. Does nothing if it is stopped."""

    @abstractmethod
    def _forget(self) -> None:
        """Delete temporary files."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._forget()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._forget()
