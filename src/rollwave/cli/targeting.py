"""Wait until a large group is targeted, and show the progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rollwave.cli.output import complain
from rollwave.cli.watch import Screen, follow
from rollwave.client.api import Api
from rollwave.client.follow import Look
from rollwave.client.progress import Meter, Snapshot, targeting
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
    with _screen() as screen:
        follow(api, campaign_id, screen, timeout=timeout, until=lambda seen: not seen.being_targeted)
    document: dict[str, Any] = api.get(f"/ota/campaigns/{campaign_id}")
    return document


class _Teller:
    """Describes the progress, and says when there is none."""

    def __init__(self) -> None:
        self._targeted: int | None = None
        self._since = time.monotonic()

    def words(self, seen: Snapshot) -> str:
        if seen.targeted != self._targeted:
            self._targeted, self._since = seen.targeted, time.monotonic()
        if not seen.being_targeted:
            return f"campaign {seen.id}: {seen.total:,} devices targeted"
        still = time.monotonic() - self._since > STANDSTILL
        return f"campaign {seen.id}: {targeting(seen)}" + ("; no worker seems to run" if still else "")


class _Bar:
    """A progress bar, for a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._teller = _Teller()
        self._task = progress.add_task("")

    def show(self, look: Look, _meter: Meter) -> None:
        seen = look.snapshot
        done = seen.targeted if seen.targeted is not None else seen.wanted
        self._progress.update(self._task, description=self._teller.words(seen), total=seen.wanted, completed=done)

    def away(self, error: ApiUnavailable) -> None:
        self._progress.update(self._task, description=f"{error}; retrying")


class _Lines:
    """One line for each change, for a file or a pipe."""

    def __init__(self) -> None:
        self._last = ""
        self._teller = _Teller()

    def show(self, look: Look, _meter: Meter) -> None:
        line = self._teller.words(look.snapshot)
        if line != self._last:
            complain(line)
        self._last = line

    def away(self, error: ApiUnavailable) -> None:
        complain(f"{error}; retrying")


@contextmanager
def _screen() -> Iterator[Screen]:
    """Shows progress on standard error, so that standard output has only the result."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress)
