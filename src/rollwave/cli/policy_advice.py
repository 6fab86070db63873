"""What the author of a policy is told: warnings, and when its windows open next. Printed on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

from rollwave.cli.output import complain
from rollwave.domain.policy.words import DEVICE_ZONE

if TYPE_CHECKING:
    from rollwave.domain.policy.document.model import PolicyDocument

Opening: TypeAlias = tuple[datetime, datetime | None]
"""When the windows open, and when they close (None: not within 400 days)."""


def show_advice(answer: Mapping[str, Any], policy: object) -> None:
    """Print what an answer of the API tells. ``policy``: the data of the document, or the name of a policy.

    The API of an earlier version tells nothing.
    """
    schedule = policy.get("schedule", {}) if isinstance(policy, Mapping) else {}
    openings = [(_time(each["start"]), each["end"] and _time(each["end"])) for each in answer.get("next_openings", ())]
    by_device = any(each.get("time_zone") == DEVICE_ZONE for each in schedule.get("windows", ()))
    _show(answer.get("warnings", ()), openings, schedule.get("time_zone", "UTC"), by_device=by_device)


def show_advice_on(document: PolicyDocument) -> None:
    """Print what is told about a document, by the clock of this machine."""
    from rollwave.domain.policy.advice import advice

    told, schedule = advice(document, datetime.now(UTC)), document.schedule
    by_device = schedule is not None and any(each.differs_by_device for each in schedule.windows)
    _show(told.warnings, told.openings, schedule.time_zone if schedule else "UTC", by_device=by_device)


def _show(warnings: Iterable[str], openings: Sequence[Opening], time_zone: str, *, by_device: bool) -> None:
    for warning in warnings:
        complain(f"warning: {warning}")
    if not openings:
        return
    zone, whose = ZoneInfo(time_zone), ", for devices without a time zone" if by_device else ""
    complain(f"next openings{whose}: {', '.join(_shown(each, zone) for each in openings)} ({time_zone})")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _shown(opening: Opening, zone: ZoneInfo) -> str:
    start, end = opening[0].astimezone(zone), None if opening[1] is None else opening[1].astimezone(zone)
    if end is None:
        return f"from {start:%Y-%m-%d %H:%M} on"
    return (
        f"{start:%Y-%m-%d %H:%M} to {end:%H:%M}"
        if end.date() == start.date()
        else (f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}")
    )
