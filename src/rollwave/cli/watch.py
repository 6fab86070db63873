"""Follows one campaign, and shows it on a terminal, in a file or as documents."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from rollwave.cli.output import Format, complain, console, print_json, print_yaml, say
from rollwave.client.api import Api
from rollwave.client.events import Event
from rollwave.client.follow import Follower, Look
from rollwave.client.progress import Snapshot
from rollwave.client.view import Campaign, clock, in_one_line
from rollwave.domain.campaign import CampaignStatus
from rollwave.errors import ApiUnavailable

INTERVAL = 1.0
"""Seconds between two requests."""

UNAVAILABLE_TIMEOUT_SECONDS = 60.0
"""Seconds for which the API may be unavailable, after it has answered once."""

_EVENTS_KEPT = 20


class Screen(Protocol):
    """Shows a campaign."""

    def show(self, look: Look) -> None:
        """Show the campaign's present state."""

    def away(self, error: ApiUnavailable) -> None:
        """Show that the API does not answer and that the command tries again."""


def follow(
    api: Api,
    campaign_id: int,
    screen: Screen,
    *,
    timeout: float | None = None,
    until: Callable[[Snapshot], bool] = lambda seen: seen.over,
) -> Snapshot | None:
    """Show the campaign until it has ended, or until ``until`` returns true for it.

    Returns:
    The campaign's last state. None: ``timeout`` seconds have passed.

    Raises:
        RollwaveError: the API cannot show the campaign, or is unavailable for ``UNAVAILABLE_TIMEOUT_SECONDS``.
    """
    follower = Follower(api, campaign_id, with_timeline=isinstance(screen, Picture))
    began = time.monotonic()
    seen_at: float | None = None
    while True:
        try:
            look = follower.look()
        except ApiUnavailable as error:
            if seen_at is None or time.monotonic() - seen_at > UNAVAILABLE_TIMEOUT_SECONDS:
                raise
            screen.away(error)
        else:
            seen_at = time.monotonic()
            screen.show(look)
            if until(look.snapshot):
                return look.snapshot
        left = INTERVAL if timeout is None else began + timeout - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(INTERVAL, left))


def exit_code(last: Snapshot | None) -> int:
    """The exit code of the command: 0 completed, 3 aborted, 4 timed out."""
    if last is None:
        return 4
    return 0 if last.status is CampaignStatus.COMPLETED else 3


class Picture:
    """A live view, for a terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._campaign: RenderableType = Text()

    def show(self, look: Look) -> None:
        self._events.extend(look.to_show)
        self._campaign = Campaign(look, tuple(self._events))
        self._draw()

    def away(self, error: ApiUnavailable) -> None:
        self._draw(Text(f"{error}; retrying", "yellow"))

    def _draw(self, *notes: Text) -> None:
        self._live.update(Group(*notes, self._campaign), refresh=True)


class Lines:
    """One line for each change, for a file or a pipe."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, look: Look) -> None:
        for event in look.to_show:
            say(f"{clock(event)}  {event.sentence}")
        present = in_one_line(look.snapshot)
        if present != self._last:
            say(present)
        self._last = present

    def away(self, error: ApiUnavailable) -> None:
        complain(f"{error}; retrying")


class Documents:
    """Prints the API's overview at each change, one document per line, or separated by ``---`` in YAML."""

    def __init__(self, output: Format) -> None:
        self._output = output
        self._last: object = None

    def show(self, look: Look) -> None:
        document = {key: value for key, value in look.document.items() if key != "as_of"}
        if document == self._last:
            return
        self._last = document
        if self._output is Format.YAML:
            say("---")
            print_yaml(look.document)
        else:
            print_json(look.document)

    def away(self, error: ApiUnavailable) -> None:
        complain(f"{error}; retrying")


@contextmanager
def screen(output: Format) -> Iterator[Screen]:
    """The screen for this output format, on a terminal or elsewhere."""
    if output in {Format.JSON, Format.YAML}:
        yield Documents(output)
    elif not sys.stdout.isatty():
        yield Lines()
    else:
        with Live(console=console(), auto_refresh=False) as live:
            yield Picture(live)
