"""Wait until a large group is targeted, and show the progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rollwave.cli.output import complain
from rollwave.cli.watch import INTERVAL, UNAVAILABLE_TIMEOUT_SECONDS
from rollwave.client.api import Api
from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.errors import ApiUnavailable

STANDSTILL = 5.0
"""Seconds without progress after which the command says that no worker seems to run."""


def wait_until_targeted(api: Api, campaign_id: int, *, timeout: float | None = None) -> dict[str, Any]:
    """Wait until every device is targeted, the campaign is aborted or ``timeout`` seconds have passed.

    Returns:
    The campaign, as the API shows it.

    Raises:
        RollwaveError: the API cannot show the campaign. The targeting continues.
    """
    began = seen_at = time.monotonic()
    document: dict[str, Any] | None = None
    with _screen() as screen:
        while True:
            try:
                document = api.get(f"/ota/campaigns/{campaign_id}")
            except ApiUnavailable as error:
                if document is None or time.monotonic() - seen_at > UNAVAILABLE_TIMEOUT_SECONDS:
                    raise
                screen.away(error)
            else:
                seen_at = time.monotonic()
                screen.show(document)
                if not _being_targeted(document):
                    return document
            left = INTERVAL if timeout is None else began + timeout - time.monotonic()
            if left <= 0 and document is not None:
                return document
            time.sleep(min(INTERVAL, max(left, 0.0)))


def _being_targeted(document: Mapping[str, Any]) -> bool:
    return document.get("targeted_devices") is not None and CampaignStatus(document["status"]) not in FINAL


class _Screen(Protocol):
    def show(self, document: Mapping[str, Any]) -> None: ...

    def away(self, error: ApiUnavailable) -> None: ...


class _Teller:
    """Describes the progress, and says when there is none."""

    def __init__(self) -> None:
        self._targeted: int | None = None
        self._since = time.monotonic()

    def words(self, document: Mapping[str, Any]) -> str:
        targeted, total = document.get("targeted_devices"), document.get("total_devices") or 0
        if targeted != self._targeted:
            self._targeted, self._since = targeted, time.monotonic()
        if not _being_targeted(document):
            return f"campaign {document['id']}: {total:,} devices targeted"
        still = time.monotonic() - self._since > STANDSTILL
        progress = f"campaign {document['id']}: targeting {targeted or 0:,} of {total:,} devices"
        return progress + ("; no worker seems to run" if still else "")


class _Bar:
    """A progress bar, for a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._teller = _Teller()
        self._task = progress.add_task("")

    def show(self, document: Mapping[str, Any]) -> None:
        total = document.get("total_devices") or 0
        done = document.get("targeted_devices")
        self._progress.update(
            self._task,
            description=self._teller.words(document),
            total=total,
            completed=total if done is None else done,
        )

    def away(self, error: ApiUnavailable) -> None:
        self._progress.update(self._task, description=f"{error}; retrying")


class _Lines:
    """One line for each change, for a file or a pipe."""

    def __init__(self) -> None:
        self._last = ""
        self._teller = _Teller()

    def show(self, document: Mapping[str, Any]) -> None:
        line = self._teller.words(document)
        if line != self._last:
            complain(line)
        self._last = line

    def away(self, error: ApiUnavailable) -> None:
        complain(f"{error}; retrying")


@contextmanager
def _screen() -> Iterator[_Screen]:
    """Shows progress on standard error, so that standard output has only the result."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress)
