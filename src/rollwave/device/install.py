"""Handing a fetched artifact to the device's own installer."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import IO

from rollwave.errors import ConfigurationError, RollwaveError
from rollwave.mqtt.payload import Command

_TAIL = 4096
_LOOK, _MOST = 0.2, 16 * 1024 * 1024
"""Seconds after which the installer's output is looked at, and bytes over which it is dropped."""
_GRACE = 5.0


class InstallFailed(RollwaveError):
    """The installer said no, or said nothing in time. The message is fit for a report."""


class Installer:
    """Runs one command per artifact, without a shell.

    ``{path}`` in an argument stands for the artifact. The installer is given ``ROLLWAVE_FILE``,
    ``ROLLWAVE_VERSION`` and ``ROLLWAVE_CAMPAIGN`` in its environment. A device that loses power half way
    runs it again, so it has to be safe to repeat.
    """

    def __init__(self, hook: str = "", *, timeout: float = 600.0) -> None:
        """Read ``hook`` as a shell would split it; empty means that fetching is all there is to do.

        Raises:
            ConfigurationError: quotes do not match.
        """
        try:
            self._arguments = shlex.split(hook)
        except ValueError as error:
            raise ConfigurationError(f"the install command cannot be read: {error}", hint="Check its quotes.") from None
        self._timeout = timeout

    async def install(self, artifact: Path, command: Command) -> None:
        """Install ``artifact``, or return at once where there is no hook.

        Raises:
            InstallFailed: with the last line that the installer wrote.
        """
        if not self._arguments:
            return
        with _output() as output:
            code = await self._run(self._argv(artifact, command), output)
            if code != 0:
                raise InstallFailed(f"install failed (exit {code}): {_last_line(output)}".rstrip(": "))

    def _argv(self, artifact: Path, command: Command) -> list[str]:
        path = str(artifact.resolve())
        return [
            "env",  # adds to the environment that is inherited
            f"ROLLWAVE_FILE={path}",
            f"ROLLWAVE_VERSION={command.version}",
            f"ROLLWAVE_CAMPAIGN={command.campaign_id}",
            *(argument.replace("{path}", path) for argument in self._arguments),
        ]

    async def _run(self, argv: list[str], output: IO[bytes]) -> int:
        # A file, not a pipe: a daemon that the installer leaves behind would hold a pipe open for ever.
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise InstallFailed(f"install failed: the installer cannot be started: {error}") from error
        try:
            async with asyncio.timeout(self._timeout):
                return await _ended(process, output)
        except TimeoutError:
            raise InstallFailed(f"install failed: not done after {self._timeout:g} s") from None
        finally:
            if process.returncode is None:
                await _end(process)


def _output() -> IO[bytes]:
    """Where the installer writes. On a full disk it does without a last line, rather than without an installation."""
    try:
        output = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    except OSError:
        return Path(os.devnull).open("r+b")
    # Always at the end, so that it can be cut from under the installer.
    fcntl.fcntl(output, fcntl.F_SETFL, fcntl.fcntl(output, fcntl.F_GETFL) | os.O_APPEND)
    return output


async def _ended(process: asyncio.subprocess.Process, output: IO[bytes]) -> int:
    """Wait for the exit code, while what is written never fills the disk."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK):
                return await process.wait()
        if os.fstat(output.fileno()).st_size > _MOST:
            os.ftruncate(output.fileno(), 0)


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await process.wait()
                return


def _last_line(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _TAIL))
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
