"""Waiting for a large group to be targeted, and showing how far that is."""

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
"""Seconds without another device targeted, after which one may ask whether anybody works."""


def wait_until_targeted(api: Api, campaign_id: int, *, timeout: float | None = None) -> dict[str, Any]:
    """Look until every device is targeted, it is aborted or ``timeout`` seconds passed; returns the campaign as it is.

    Raises:
        RollwaveError: it cannot be looked at. Its targeting goes on.
    """
    with _screen() as screen:
        follow(api, campaign_id, screen, timeout=timeout, until=lambda seen: not seen.being_targeted)
    document: dict[str, Any] = api.get(f"/ota/campaigns/{campaign_id}")
    return document


class _Teller:
    """Says how far it is, and when it stands still."""

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
    """A bar that grows, for a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._teller = _Teller()
        self._task = progress.add_task("")

    def show(self, look: Look, _meter: Meter) -> None:
        seen = look.snapshot
        done = seen.targeted if seen.targeted is not None else seen.wanted
        self._progress.update(self._task, description=self._teller.words(seen), total=seen.wanted, completed=done)

    def away(self, error: ApiUnavailable) -> None:
        self._progress.update(self._task, description=f"{error}; trying again")


class _Lines:
    """One line for each look that shows more, for a file or a pipe."""

    def __init__(self) -> None:
        self._last = ""
        self._teller = _Teller()

    def show(self, look: Look, _meter: Meter) -> None:
        line = self._teller.words(look.snapshot)
        if line != self._last:
            complain(line)
        self._last = line

    def away(self, error: ApiUnavailable) -> None:
        complain(f"{error}; trying again")


@contextmanager
def _screen() -> Iterator[Screen]:
    """On standard error: what the command prints stays its own."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress)
