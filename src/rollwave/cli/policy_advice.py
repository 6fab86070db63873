"""What the author of a policy is told: warnings, and when its windows open next. Printed on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

from rollwave.cli.output import complain

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
    _show(answer.get("warnings", ()), openings, schedule.get("time_zone", "UTC"))


def show_advice_on(document: PolicyDocument) -> None:
    """Print what is told about a document, by the clock of this machine."""
    from rollwave.domain.policy.advice import advice

    told = advice(document, datetime.now(UTC))
    _show(told.warnings, told.openings, document.schedule.time_zone if document.schedule else "UTC")


def _show(warnings: Iterable[str], openings: Iterable[Opening], time_zone: str) -> None:
    for warning in warnings:
        complain(f"warning: {warning}")
    zone = ZoneInfo(time_zone)
    for start, end in openings:
        closes = "and do not close within 400 days" if end is None else f"and close {_shown(end, zone)}"
        complain(f"the windows open {_shown(start, zone)} {closes}")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _shown(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).isoformat(timespec="seconds").replace("+00:00", "Z")
