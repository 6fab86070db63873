"""The gates of time: the tenant's halt and freezes, and the schedule and windows of a policy document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo

from rollwave.domain import brakes
from rollwave.domain.brakes import Brake
from rollwave.domain.policy import windows
from rollwave.domain.policy.document.model import PolicyDocument, ScheduleRule
from rollwave.domain.policy.facts import Facts
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.words import GateName

OPEN_AT_A_TIME = frozenset({GateName.HALTED, GateName.FREEZE, GateName.SCHEDULE})
"""The gates that open at a known time, or when an operator opens them, which wakes the workers."""


_openings = windows.Openings()
"""Kept for the process: for each distinct zone, whether it is open and the next change are computed once."""


def stops(policy: Policy, facts: Facts) -> tuple[Verdict, ...]:
    """The gates of time that apply to every command of a campaign, in the order in which they are asked.

    While one of them is closed, no command is sent again either, so the campaign's deadlines stand still.
    """
    return stops_of(policy.document, facts.brakes, facts.now)


def stops_of(document: PolicyDocument | None, of_tenant: Sequence[Brake], now: datetime) -> tuple[Verdict, ...]:
    """As :func:`stops`. ``of_tenant``: its halt and freezes that are not over."""
    found = [halted(of_tenant), freeze(document, of_tenant, now)]
    rule = _schedule_of(document)
    if rule is not None and (rule.start is not None or rule.end is not None):
        found.append(schedule(rule, now))
    return tuple(found)


def halted(of_tenant: Sequence[Brake]) -> Verdict:
    """Open if sending of the tenant is not halted."""
    halt = brakes.halt_of(of_tenant)
    if halt is None:
        return Verdict(GateName.HALTED, None, "sending is not halted")
    text = f"sending is halted since {_utc(halt.start)}"
    detail: dict[str, object] = {"since": halt.start.isoformat(), "by": halt.by}
    if halt.reason:
        text, detail["reason"] = f"{text}: {halt.reason}", halt.reason
    return Verdict(GateName.HALTED, 0, text, detail=detail)


def freeze(document: PolicyDocument | None, of_tenant: Sequence[Brake], now: datetime) -> Verdict:
    """Open if no freeze of the tenant is in force, or the policy ignores freezes."""
    in_force = brakes.freezes_in_force(of_tenant, now)
    if not in_force:
        return Verdict(GateName.FREEZE, None, "no freeze is in force")
    last = in_force[0]
    if ignores_freezes(document):
        text = f"the freeze {last.name} is in force, and the policy ignores freezes"
        return Verdict(GateName.FREEZE, None, text, detail={"name": last.name})
    until = brakes.thaws_at(of_tenant, now)
    text = f"the freeze {last.name} is in force until {_utc(last.end or now)}"
    detail: dict[str, object] = {"name": last.name, "by": last.by}
    if last.reason:
        text, detail["reason"] = f"{text}: {last.reason}", last.reason
    return Verdict(GateName.FREEZE, 0, text, until, detail)


def schedule(rule: ScheduleRule, now: datetime) -> Verdict:
    """Open from the start of the schedule to before its end."""
    if rule.start is not None and now < rule.start:
        return Verdict(GateName.SCHEDULE, 0, f"the schedule starts at {_utc(rule.start)}", rule.start)
    if rule.end is not None and now >= rule.end:
        return Verdict(GateName.SCHEDULE, 0, f"the schedule ended at {_utc(rule.end)}")
    text = "the schedule has started" if rule.end is None else f"the schedule ends at {_utc(rule.end)}"
    return Verdict(GateName.SCHEDULE, None, text)


def has_ended(document: PolicyDocument | None, now: datetime) -> bool:
    """Whether the schedule of the document has ended, so that the campaign is aborted."""
    rule = _schedule_of(document)
    return rule is not None and rule.end is not None and now >= rule.end


def ignores_freezes(document: PolicyDocument | None) -> bool:
    """Whether campaigns under this document are sent during a freeze. Starting one takes an approver."""
    rule = _schedule_of(document)
    return rule is not None and rule.ignore_freezes


def window(document: PolicyDocument | None, zone: str | None, now: datetime) -> Verdict | None:
    """The gate of the windows for devices of one time zone. None: the document has no windows.

    Args:
        zone: the IANA name of the devices' time zone; None, or a name that does not exist: they have none.
        now: any aware time.
    """
    rule = _schedule_of(document)
    if rule is None or not rule.windows:
        return None
    default, device = windows.zone_of(rule.time_zone) or UTC, windows.zone_of(zone)
    found = _openings.of(rule.windows, default, device, now)
    shown = windows.shown_zone(rule.windows, default, device)
    name = windows.zone_name(shown)
    detail: dict[str, object] = {"time_zone": name}
    if zone is not None and device is None and any(each.differs_by_device for each in rule.windows):
        detail["unknown_time_zone"] = zone
    until = None if found.until is None else _local(found.until, shown, now)
    if found.open:
        text = f"inside the windows{f' until {until}' if until else ''}"
        return Verdict(GateName.WINDOW, None, text, detail=detail)
    allowing = [each.name for each in rule.windows if each.kind is windows.WindowKind.ALLOW]
    if found.denied_by is not None:
        text = f"window {found.denied_by} denies sending{f' until {until}' if until else ''}"
    elif until is None:
        text = f"outside window{'s' * (len(allowing) > 1)} {', '.join(allowing)}"
    else:
        several = len(allowing) > 1
        text = f"{'one of the windows' if several else 'window'} {', '.join(allowing)} opens at {until}"
    return Verdict(GateName.WINDOW, 0, text, found.until, detail)


def window_closes(document: PolicyDocument | None, now: datetime) -> datetime | None:
    """When the windows that are open now close for devices without a time zone. None: they do not, or are closed."""
    rule = _schedule_of(document)
    if rule is None or not rule.windows:
        return None
    found = _openings.of(rule.windows, windows.zone_of(rule.time_zone) or UTC, None, now)
    return found.until if found.open else None


def _schedule_of(document: PolicyDocument | None) -> ScheduleRule | None:
    return None if document is None else document.schedule


def _utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _local(time: datetime, zone: tzinfo, now: datetime) -> str:
    """A time in a zone, and in UTC beside it; without the date where that is today in both."""
    name, zones = windows.zone_name(zone), (zone, UTC)
    today = all(time.astimezone(each).date() == now.astimezone(each).date() for each in zones)
    there, in_utc = (f"{time.astimezone(each):{'%H:%M' if today else '%Y-%m-%d %H:%M'}}" for each in zones)
    return f"{in_utc} UTC" if name == "UTC" else f"{there} in {name} ({in_utc} UTC)"
