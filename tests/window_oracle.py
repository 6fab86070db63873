"""An oracle for time windows by brute force: it looks at each window at each minute.

``python -m tests.window_oracle`` compares it with the engine's rule at every minute around each clock change of ten
years, in every IANA zone.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim

from rollwave.domain.policy.document.model import Window
from rollwave.domain.policy.windows import opening, zone_of
from rollwave.domain.policy.words import WindowKind

MINUTE = timedelta(minutes=1)


def window(**keys: object) -> Window:
    """A window of a policy document, by default an allow window."""
    return Window.model_validate({"name": "w", "kind": "allow", **keys})


def covered(window: Window, begins: Sequence[datetime], now: datetime) -> bool:
    cut = timedelta(seconds=window.cutoff or 0)
    if window.start is not None and window.end is not None:
        return window.start <= now < window.end - cut
    return any(each <= now < each + timedelta(seconds=window.duration or 0) - cut for each in begins)


def occurrences(window: Window, zone: tzinfo, first: datetime, last: datetime) -> list[datetime]:
    """The occurrences of a cron expression that may matter, found from the duration and a day before on."""
    found: list[datetime] = []
    before = timedelta(days=1, seconds=window.duration or 0)
    if window.cron is not None:
        for each in CronSim(window.cron, (first - before).astimezone(zone)):
            if each.astimezone(UTC) > last:
                break
            found.append(each.astimezone(UTC))
    return [each for each in found if each + timedelta(seconds=window.duration or 0) > first]


class Oracle:
    """Looks at each window at each minute."""

    def __init__(
        self, windows: Sequence[Window], default: tzinfo, device: tzinfo | None, first: datetime, last: datetime
    ) -> None:
        self._windows = []
        for each in windows:
            zone = default if each.time_zone is None else zone_of(each.time_zone) or default
            if each.time_zone == "device":
                zone = device or default
            self._windows.append((each, occurrences(each, zone, first, last)))

    def is_open(self, now: datetime) -> bool:
        covering = [each.kind for each, begins in self._windows if covered(each, begins, now)]
        allow = any(each.kind is WindowKind.ALLOW for each, _ in self._windows)
        return WindowKind.DENY not in covering and (not allow or WindowKind.ALLOW in covering)


def assert_agrees(
    windows: Sequence[Window], default: tzinfo, device: tzinfo | None, first: datetime, minutes: int, every: int = 100
) -> None:
    """The function and the oracle agree in every minute, and the function says when the state changes.

    In one minute of ``every``, the function is asked anew, and must say the same.
    """
    oracle = Oracle(windows, default, device, first, first + minutes * MINUTE)
    found = opening(windows, default, device, first)
    for minute in range(minutes):
        now = first + minute * MINUTE
        if found.until is not None and now >= found.until:
            found = opening(windows, default, device, now)
        elif minute % every == 0:
            assert opening(windows, default, device, now).open is found.open, (windows, device, now)
        assert found.open is oracle.is_open(now), (windows, device, now)


CRONS = [
    "0 2 * * *",
    "30 1 * * 0",
    "*/15 1-3 * * *",
    "0 * * * *",
    "15,45 0-4 * * *",
    "0 0 * * *",
    "0 23 * * 6",
    "30 2 * * *",
]


def changes(zone: tzinfo, first_year: int, years: int) -> list[datetime]:
    """The moments at which the zone's clock is changed, found by looking every third day and then by halving."""
    found = []
    day = datetime(first_year, 1, 1, tzinfo=UTC)
    last = datetime(first_year + years, 1, 1, tzinfo=UTC)
    offset = day.astimezone(zone).utcoffset()
    while day < last:
        after = day + timedelta(days=3)
        if after.astimezone(zone).utcoffset() != offset:
            low, high = day, after
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) / 2
                low, high = (middle, high) if middle.astimezone(zone).utcoffset() == offset else (low, middle)
            found.append(high.replace(microsecond=0))
            offset = after.astimezone(zone).utcoffset()
        day = after
    return found


AROUND = timedelta(hours=3)


def by_changes(names: Sequence[str], first_year: int, years: int) -> dict[tuple[object, ...], list[str]]:
    """The zones whose clocks are changed at the same moments in the same way, since many names mean the same zone."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        zone = ZoneInfo(name)
        alike = tuple(
            (each, (each - MINUTE).astimezone(zone).utcoffset(), each.astimezone(zone).utcoffset())
            for each in changes(zone, first_year, years)
        )
        found.setdefault(alike, []).append(name)
    return found


def assert_agrees_around_changes(name: str, first_year: int, years: int, dice: random.Random) -> int:
    """Returns the number of clock changes of the zone."""
    zone = ZoneInfo(name)
    found = changes(zone, first_year, years)
    for change in found:
        cron = dice.choice(CRONS)
        # A window without an end is slow to look at, and nothing changes in it.
        length = dice.choice(["25m", "40m"] if cron == "0 * * * *" else ["30m", "1h", "90m", "3h", "20h"])
        windows = [window(cron=cron, duration=length, time_zone="device")]
        first = (change - AROUND).replace(second=0)
        assert_agrees(windows, UTC, zone, first, int(2 * AROUND / MINUTE), every=200)
    return len(found)


def main() -> None:
    """Compare in every zone. Arguments: the first year, and the number of years."""
    first, years = (int(each) for each in (sys.argv[1:] or ["2020", "10"]))
    dice, began, number = random.Random(first), time.monotonic(), 0
    names = sorted(available_timezones())
    alike = by_changes(names, first, years)
    for group in alike.values():
        number += assert_agrees_around_changes(dice.choice(group), first, years, dice)
    seconds = time.monotonic() - began
    print(f"{len(names)} zones of {len(alike)} kinds, {number} clock changes, {seconds:.0f} s: every minute agrees")


if __name__ == "__main__":
    main()
