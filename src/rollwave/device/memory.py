"""Saves the state of a device in one small JSON file. The file is replaced atomically."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollwave.device import codes
from rollwave.device.decide import Job, State
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import ConfigurationError, InvalidInput, RollwaveError
from rollwave.log import get_logger
from rollwave.mqtt.payload import read_command

RESERVE = 32 * 1024
"""Size in bytes of a reserve file, which is deleted to save the state when the disk is full."""

_MAX_BYTES = 1024 * 1024
"""Maximum number of bytes that are read. The agent writes no larger file."""

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Errors of the disk, as opposed to errors of a setting."""

_log = get_logger("device")


class StateNotSaved(RollwaveError):
    """The state cannot be written. The message is sent in the device's report."""

    code = codes.DISK


class Memory:
    """The directory of one device, with its state and its artifact."""

    def __init__(self, directory: Path) -> None:
        """Create the directory.

        Raises:
            ConfigurationError: it cannot be created. Not raised if the disk is full or broken: then the agent continues
                with the state in memory, and reports the problem.
        """
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise ConfigurationError(
                    f"the state directory {directory} cannot be created: {error.strerror}",
                    hint="Name a directory that this user may write with --state.",
                ) from error
            _log.warning("device_state_not_saved", file=str(directory), reason=str(error))
        self._file = directory / "state.json"
        self._reserve = directory / "state.reserve"
        self.artifact = directory / "firmware.bin"

    def load(self) -> State:
        """The state as last saved. Parts that cannot be read are left out: the engine sends the command again."""
        try:
            with self._file.open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
            return _state(document)
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("device_state_unreadable", file=str(self._file), reason=repr(error))
            return State()

    def save(self, state: State) -> None:
        """Write ``state`` to the disk. If the disk is full, delete the reserve file and try again.

        Raises:
            StateNotSaved: it still cannot be written. The state that was saved before is unchanged.
        """
        document = json.dumps(asdict(state)).encode()
        try:
            self._write(document)
        except OSError:
            with contextlib.suppress(OSError):
                self._reserve.unlink()
            try:
                self._write(document)
            except OSError as error:
                raise StateNotSaved(
                    f"cannot save the device's state in {self._directory}: {error.strerror or error}"
                ) from error
        self._fill_reserve()

    def _write(self, document: bytes) -> None:
        new = self._file.with_suffix(".new")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise

    def _fill_reserve(self) -> None:
        """Write the reserve file, as far as the disk has space.

        Its content is random, as some file systems compress files and would reserve less space.
        """
        with contextlib.suppress(OSError):
            if not self._reserve.exists():
                self._reserve.write_bytes(os.urandom(RESERVE))


def _state(document: dict[str, Any]) -> State:
    finished = document.get("finished")
    jobs = map(_job, finished if isinstance(finished, list) else [])
    return State(_job(document.get("running")), _job(document.get("waiting")), tuple(job for job in jobs if job))


def _job(document: object) -> Job | None:
    """One job, or None if this version cannot read it. Unknown keys, as another version writes them, are ignored."""
    match document:
        case {
            "command": dict(command),
            "attempt": int() | None as attempt,
            "status": str(status),
            "error": str() | None as error,
            "delivered": bool(delivered),
            **more,
        }:
            code = more.get("code")
            code = code if isinstance(code, str) else None
            with contextlib.suppress(ValueError, InvalidInput):
                return Job(read_command(command), attempt, ExecutionStatus(status), error, delivered, code)
    if document is not None:
        _log.warning("device_state_unreadable", reason="a job was written by another version")
    return None
