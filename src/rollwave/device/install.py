"""Runs the device's install command for a downloaded artifact."""

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

from rollwave.device import codes
from rollwave.errors import ConfigurationError, RollwaveError
from rollwave.mqtt.payload import Command

_TAIL_BYTES = 4096
_CHECK_SECONDS = 0.2
"""Time between two checks of the size of the installer's output, in seconds."""
_MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""Maximum size of the output. A larger one is truncated."""
_STOP_SECONDS = 5.0
"""Time for the installer to end after SIGTERM, before SIGKILL, in seconds."""


class InstallFailed(RollwaveError):
    """The install command failed, or did not end in time. The message is sent in the device's report."""

    code = codes.INSTALL


class Installer:
    """Runs the install command, without a shell.

    ``{path}`` in an argument is replaced by the path of the artifact. The command has the variables
    ``ROLLWAVE_FILE``, ``ROLLWAVE_VERSION`` and ``ROLLWAVE_CAMPAIGN``. It must be safe to repeat: after a loss of
    power, it is run again.
    """

    def __init__(self, hook: str = "", *, timeout: float = 600.0) -> None:
        """``hook``: the install command, split as a shell does. Empty: a verified download is a success.

        ``timeout``: maximum time for the command, in seconds.

        Raises:
            ConfigurationError: quotes do not match.
        """
        try:
            self._arguments = shlex.split(hook)
        except ValueError as error:
            raise ConfigurationError(f"the install command cannot be read: {error}", hint="Check its quotes.") from None
        self._timeout = timeout

    async def install(self, artifact: Path, command: Command) -> None:
        """Install ``artifact``. Returns at once if there is no install command.

        Raises:
            InstallFailed: the message contains the last line of the command's output.
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
            "env",  # adds variables to the inherited environment
            f"ROLLWAVE_FILE={path}",
            f"ROLLWAVE_VERSION={command.version}",
            f"ROLLWAVE_CAMPAIGN={command.campaign_id}",
            *(argument.replace("{path}", path) for argument in self._arguments),
        ]

    async def _run(self, argv: list[str], output: IO[bytes]) -> int:
        # A file, not a pipe: a daemon that the installer starts would keep a pipe open.
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
            raise InstallFailed(f"install failed: not finished after {self._timeout:g} s") from None
        finally:
            if process.returncode is None:
                await _end(process)


def _output() -> IO[bytes]:
    """The file for the installer's output. If the disk is full, the output is discarded."""
    try:
        output = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    except OSError:
        return Path(os.devnull).open("r+b")
    # Append mode, so that the file can be truncated while the installer writes to it.
    fcntl.fcntl(output, fcntl.F_SETFL, fcntl.fcntl(output, fcntl.F_GETFL) | os.O_APPEND)
    return output


async def _ended(process: asyncio.subprocess.Process, output: IO[bytes]) -> int:
    """Wait for the exit code. Meanwhile, truncate the output when it grows too large for the disk."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                return await process.wait()
        if os.fstat(output.fileno()).st_size > _MAX_OUTPUT_BYTES:
            os.ftruncate(output.fileno(), 0)


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
                return


def _last_line(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _TAIL_BYTES))
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
