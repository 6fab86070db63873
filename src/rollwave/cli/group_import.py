"""Send the devices of a group to the API: in one request, or in parts that are applied together."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol

from rollwave.cli.devices_csv import Device
from rollwave.cli.output import complain
from rollwave.client.api import Api
from rollwave.domain.ids import in_path
from rollwave.errors import Conflict, RollwaveError

PART = 5000
"""Maximum number of devices per part. The server writes them in about a third of a second."""

PART_BYTES = 4 * 1024 * 1024
"""Maximum size of a part as JSON, in bytes. The server accepts twice as much."""

APPLY_TIMEOUT = 600.0
"""Maximum time for the server to apply an import, in seconds."""

QUIET = 1.0
"""Seconds before progress is shown. Most imports are finished by then."""

LINE_EVERY = 5.0
"""Seconds between two lines of progress, off a terminal."""


def replace_members(api: Api, group: str, devices: Sequence[Device]) -> Any:
    """Replace the members of the group, and return the answer of the API.

    If it fails or is interrupted (also by Ctrl-C), the group has either its old members or all of the new ones.

    Raises:
        RollwaveError: the API answered with an error.
    """
    documents = _documents(devices)
    parts = list(_parts(documents))
    if len(parts) == 1:
        return api.put(f"/device-groups/{in_path(group)}", {"device_ids": [], **parts[0]})
    path = f"/device-groups/{in_path(group)}/imports"
    path = f"{path}/{api.post(path)['import_id']}"
    try:
        with _progress(len(devices)) as progress:
            for part in parts:
                progress.show(api.post(f"{path}/devices", part)["devices"])
            progress.apply()
            return api.post(f"{path}/apply", timeout=APPLY_TIMEOUT)
    except BaseException:
        _cancel(api, path, group)
        raise


def _cancel(api: Api, path: str, group: str) -> None:
    """Cancel the import, and print which members the group has.

    If the import is being applied, cancelling waits for that. An import that cannot be cancelled expires.
    """
    try:
        api.delete(path)
    except Conflict:
        complain(f"group {group} has its new members: the import was already complete")
    except RollwaveError:
        complain(f"group {group} has either its old or its new members; the API cannot be reached to find out which")
    else:
        complain(f"group {group} is unchanged")


def _documents(devices: Sequence[Device]) -> list[Any]:
    """The documents to send. If the file has ids only, types and attributes of known devices do not change."""
    if any(device.device_type or device.attributes for device in devices):
        return [asdict(device) for device in devices]
    return [device.device_id for device in devices]


def _parts(documents: Sequence[Any]) -> Iterator[dict[str, Any]]:
    part: list[Any] = []
    size = 0
    for each in documents:
        part.append(each)
        size += len(json.dumps(each))
        if len(part) == PART or size >= PART_BYTES:
            yield _body(part)
            part, size = [], 0
    if part:
        yield _body(part)


def _body(part: list[Any]) -> dict[str, Any]:
    return {"device_ids" if isinstance(part[0], str) else "devices": part}


class _Progress(Protocol):
    def show(self, received: int) -> None:
        """The API has received this number of devices."""

    def apply(self) -> None:
        """The API has received all devices, and makes them the members."""


class _Lines:
    """A line every few seconds, for a file or a pipe."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._due = time.monotonic() + LINE_EVERY

    def show(self, received: int) -> None:
        if time.monotonic() >= self._due:
            complain(f"{received:,} of {self._devices:,} devices sent")
            self._due = time.monotonic() + LINE_EVERY

    def apply(self) -> None:
        self.show(self._devices)


class _Bar:
    """A progress bar, for a terminal. It is shown after ``QUIET`` seconds."""

    def __init__(self, devices: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._devices = devices
        self._task = self._progress.add_task("", total=devices)
        self._from = time.monotonic() + QUIET

    def show(self, received: int) -> None:
        sent = f"{received:,} of {self._devices:,} devices sent"
        self._progress.update(self._task, description=sent, completed=received)
        if time.monotonic() >= self._from:
            self._progress.start()

    def apply(self) -> None:
        self.show(self._devices)
        self._progress.update(self._task, description=f"{self._devices:,} devices sent, updating the group")
        self._progress.refresh()

    def stop(self) -> None:
        self._progress.stop()


@contextmanager
def _progress(devices: int) -> Iterator[_Progress]:
    """Shows progress on standard error, so that standard output has only the result."""
    if not sys.stderr.isatty():
        yield _Lines(devices)
        return
    bar = _Bar(devices)
    try:
        yield bar
    finally:
        bar.stop()
