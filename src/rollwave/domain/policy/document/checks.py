"""Checks of a document's selectors, cron expressions and time zones, which are small languages of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from zoneinfo import available_timezones

from rollwave.domain.policy import windows
from rollwave.domain.policy.document.located import Path, Position
from rollwave.domain.policy.document.model import PolicyDocument, ScheduleRule
from rollwave.domain.policy.selector import text as selector
from rollwave.domain.policy.words import DEVICE_ZONE


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the value at ``path``. ``place``: where in its text; None: it is about all of it."""

    path: Path
    message: str
    hint: str = ""
    place: Position | None = None


def faults(document: PolicyDocument) -> Iterator[Fault]:
    """What is wrong with the selectors, cron expressions and zones of a document whose keys are valid."""
    for number, wave in enumerate(document.waves):
        if wave.select is not None:
            yield from _selector_faults(wave.select, ("waves", number, "select"))
    if document.schedule is not None:
        yield from _schedule_faults(document.schedule)


def _selector_faults(text: str, path: Path) -> Iterator[Fault]:
    try:
        selector.parse(text)
    except selector.UnreadableSelector as error:
        place = error.position
        said = str(error)
        if place is not None:
            said = said.removeprefix(f"line {place.line}, column {place.column}: ")
        yield Fault(path, f"the selector cannot be read: {said}", error.hint, place)


def _schedule_faults(schedule: ScheduleRule) -> Iterator[Fault]:
    yield from _zone_faults(schedule.time_zone, ("schedule", "time_zone"), also=())
    for number, window in enumerate(schedule.windows):
        path: Path = ("schedule", "windows", number)
        if window.time_zone not in {None, DEVICE_ZONE}:
            yield from _zone_faults(window.time_zone, (*path, "time_zone"), also=(DEVICE_ZONE,))
        if window.cron is not None and (fault := windows.check_cron(window.cron)) is not None:
            yield Fault((*path, "cron"), fault)


def _zone_faults(name: str | None, path: Path, *, also: tuple[str, ...]) -> Iterator[Fault]:
    if windows.zone_of(name) is None:
        meant = get_close_matches(str(name), (*_zones(), *also), n=1)
        hint = f"did you mean {meant[0]}?" if meant else "use a name such as Europe/Paris, or UTC"
        yield Fault(path, f"{str(name)!r} is no time zone", hint)


@cache
def _zones() -> tuple[str, ...]:
    return (*sorted(available_timezones()), "UTC")
