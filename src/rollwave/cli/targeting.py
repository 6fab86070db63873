"""Waiting for a large group to be targeted, and showing how far that is."""

from __future__ import annotations

import sys
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


def wait_until_targeted(api: Api, campaign_id: int) -> dict[str, Any]:
    """Look until every device is targeted, or the campaign is aborted before; returns its document.

    Raises:
        RollwaveError: it cannot be looked at. Its targeting goes on.
    """
    with _screen() as screen:
        follow(api, campaign_id, screen, until=lambda seen: not seen.being_targeted)
    document: dict[str, Any] = api.get(f"/ota/campaigns/{campaign_id}")
    return document


class _Bar:
    """A bar that grows, for a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("")

    def show(self, look: Look, _meter: Meter) -> None:
        seen = look.snapshot
        done = seen.targeted if seen.targeted is not None else seen.wanted
        self._progress.update(self._task, description=_words(seen), total=seen.wanted, completed=done)

    def away(self, error: ApiUnavailable) -> None:
        self._progress.update(self._task, description=f"{error}; trying again")


class _Lines:
    """One line for each look that shows more, for a file or a pipe."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, look: Look, _meter: Meter) -> None:
        line = _words(look.snapshot)
        if line != self._last:
            complain(line)
        self._last = line

    def away(self, error: ApiUnavailable) -> None:
        complain(f"{error}; trying again")


def _words(seen: Snapshot) -> str:
    return f"campaign {seen.id}: {targeting(seen) if seen.being_targeted else f'{seen.total:,} devices targeted'}"


@contextmanager
def _screen() -> Iterator[Screen]:
    """On standard error: what the command prints stays its own."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress)
