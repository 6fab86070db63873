"""What a device remembers, in one small JSON file that is either the old one or the new one, never half."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollwave.device.decide import Job, State
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import ConfigurationError, InvalidInput, RollwaveError
from rollwave.log import get_logger
from rollwave.mqtt.payload import read_command

RESERVE = 32 * 1024
"""Bytes that are kept back on the disk, so that the state can be saved when nothing else can."""

_MOST = 1024 * 1024
"""Bytes that a state may have: a larger file is none of ours."""

_PASSES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""What is wrong with a disk and not with a setting."""

_log = get_logger("device")


class StateNotSaved(RollwaveError):
    """The state cannot be written. The message is fit for a report."""


class Memory:
    """A directory of the device's own: its state, and the artifact it is fetching or has fetched."""

    def __init__(self, directory: Path) -> None:
        """Make the directory.

        Raises:
            ConfigurationError: it cannot be made. Not raised for a disk that is full or broken: then the device goes
                on with what it has in memory, and says so in its reports.
        """
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in _PASSES:
                raise ConfigurationError(
                    f"the state directory {directory} cannot be made: {error.strerror}",
                    hint="Name a directory that this user may write with --state.",
                ) from error
            _log.warning("device_state_not_saved", file=str(directory), reason=str(error))
        self._file = directory / "state.json"
        self._reserve = directory / "state.reserve"
        self.artifact = directory / "firmware.bin"

    def load(self) -> State:
        """The state as last saved. What of it cannot be read counts as not there: the engine sends again."""
        try:
            with self._file.open("rb") as file:
                document = json.loads(file.read(_MOST))
            return _state(document)
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("device_state_unreadable", file=str(self._file), reason=repr(error))
            return State()

    def save(self, state: State) -> None:
        """Put ``state`` on the disk, on a full one with what was kept back for it.

        Raises:
            StateNotSaved: it cannot be written all the same; the state saved before is still there.
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
        self._keep_back()

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

    def _keep_back(self) -> None:
        """Random bytes: some file systems keep no room for what can be compressed. Part of it is better than none."""
        with contextlib.suppress(OSError):
            if not self._reserve.exists():
                self._reserve.write_bytes(os.urandom(RESERVE))


def _state(document: dict[str, Any]) -> State:
    finished = document.get("finished")
    jobs = map(_job, finished if isinstance(finished, list) else [])
    return State(_job(document.get("running")), _job(document.get("waiting")), tuple(job for job in jobs if job))


def _job(document: object) -> Job | None:
    """One job, or None where this version cannot read it. Keys that it does not know are another version's."""
    match document:
        case {
            "command": dict(command),
            "attempt": int() | None as attempt,
            "status": str(status),
            "error": str() | None as error,
            "delivered": bool(delivered),
        }:
            with contextlib.suppress(ValueError, InvalidInput):
                return Job(read_command(command), attempt, ExecutionStatus(status), error, delivered)
    if document is not None:
        _log.warning("device_state_unreadable", reason="a job is of another version")
    return None
