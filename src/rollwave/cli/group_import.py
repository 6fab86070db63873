"""Sending a group's devices to the API: in one request, or in parts that are applied together."""

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
"""Devices of a part: as many as the server writes in about a third of a second."""

PART_BYTES = 4 * 1024 * 1024
"""Bytes of a part, as JSON; the server takes twice as many."""

APPLY_TIMEOUT = 600.0
"""Seconds that the server may take to apply an import of hundreds of thousands of devices."""

QUIET = 1.0
"""Seconds without a word about progress; most imports are done by then."""

LINE_EVERY = 5.0
"""Seconds between two lines, off a terminal."""


def replace_members(api: Api, group: str, devices: Sequence[Device]) -> Any:
    """Make the devices the group's members, these and no other; what the API answers.

    Whatever breaks it off, Ctrl-C included, the group is as it was before or has all of the devices.

    Raises:
        RollwaveError: as the API answers.
    """
    told = _documents(devices)
    parts = list(_parts(told))
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
    """Cancel the import, and say which members the group has.

    Cancelling waits while the import is being applied. An import that cannot be cancelled expires.
    """
    try:
        api.delete(path)
    except Conflict:
        complain(f"group {group} has its new members: the import was complete already")
    except RollwaveError:
        complain(f"look at group {group}: it has its old members or its new ones, and the API cannot be asked which")
    else:
        complain(f"group {group} is as it was before")


def _documents(devices: Sequence[Device]) -> list[Any]:
    """A file of ids alone leaves what is known of the devices as it is."""
    if any(device.device_type or device.attributes for device in devices):
        return [asdict(device) for device in devices]
    return [device.device_id for device in devices]


def _parts(told: Sequence[Any]) -> Iterator[dict[str, Any]]:
    part: list[Any] = []
    size = 0
    for each in told:
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
        """So many devices are with the API."""

    def apply(self) -> None:
        """All are, and become the group's members."""


class _Lines:
    """A line now and then, for a file or a pipe."""

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
    """A bar that grows, on a terminal, once it has taken longer than ``QUIET``."""

    def __init__(self, devices: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._devices = devices
        self._task = self._progress.add_task("", total=devices)
        self._from = time.monotonic() + QUIET

    def show(self, received: int) -> None:
        told = f"{received:,} of {self._devices:,} devices sent"
        self._progress.update(self._task, description=told, completed=received)
        if time.monotonic() >= self._from:
            self._progress.start()

    def apply(self) -> None:
        self.show(self._devices)
        self._progress.update(self._task, description=f"{self._devices:,} devices sent, becoming the members")
        self._progress.refresh()

    def stop(self) -> None:
        self._progress.stop()


@contextmanager
def _progress(devices: int) -> Iterator[_Progress]:
    """On standard error: what the command prints stays its own."""
    if not sys.stderr.isatty():
        yield _Lines(devices)
        return
    bar = _Bar(devices)
    try:
        yield bar
    finally:
        bar.stop()
