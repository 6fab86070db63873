"""What a device remembers, in one small JSON file that is either the old one or the new one, never half."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollwave.device.decide import Job, State
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import ConfigurationError
from rollwave.log import get_logger
from rollwave.mqtt.payload import Command

_log = get_logger("device")


class Memory:
    """A directory of the device's own: its state, and the artifact it is fetching or has fetched."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the state directory {directory} cannot be made: {error.strerror}",
                hint="Name a directory that this user may write with --state.",
            ) from error
        self._file = directory / "state.json"
        self.artifact = directory / "firmware.bin"

    def load(self) -> State:
        """The state as last saved. A file that cannot be read counts as none: the engine sends again."""
        try:
            document = json.loads(self._file.read_bytes())
            return State(
                _job(document["running"]),
                _job(document["waiting"]),
                tuple(job for each in document["finished"] if (job := _job(each))),
            )
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("device_state_unreadable", file=str(self._file), reason=repr(error))
            return State()

    def save(self, state: State) -> None:
        """Put ``state`` on the disk before anything is said or done on its strength."""
        new = self._file.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)


def _job(document: dict[str, Any] | None) -> Job | None:
    if document is None:
        return None
    return Job(
        Command(**document["command"]),
        document["attempt"],
        ExecutionStatus(document["status"]),
        document["error"],
        document["delivered"],
    )
