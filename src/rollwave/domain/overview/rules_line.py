"""The rules of a campaign in one line: waves, time windows, pace, budgets and guardrails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rollwave.domain.overview.texts import utc
from rollwave.domain.policy.document.units import read_duration
from rollwave.domain.policy.words import DEVICE_ZONE, Method, Scope, TripAction, WindowKind

MAX_SHOWN = 3
"""Maximum number of waves before the last one, of windows, of budgets and of guardrails in the line."""

_UNITS: Mapping[str, str] = {"s": "s", "m": "min", "h": "h", "d": "d"}
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_AT_A_TIME = re.compile(r"([0-9]{1,2}) ([0-9]{1,2}) \* \* (\*|[0-7](?:[-,][0-7])*)")
_DAY_MINUTES = 24 * 60
_ACTIONS: Mapping[str, str] = {
    TripAction.ABORT: "aborts",
    TripAction.PAUSE: "pauses",
    TripAction.QUARANTINE: "quarantines",
}
_DEFAULT_GUARDRAIL: Mapping[str, Any] = {"threshold": "10%"}


def rules_line(document: Mapping[str, Any]) -> str:
    """The line. ``document``: a valid policy document as data; of flat columns, the document that they mean."""
    schedule = document.get("schedule") or {}
    parts = [_waves(document.get("waves") or ())]
    parts += _schedule(schedule)
    parts += _pace(document.get("pace") or {})
    parts += _some([f"at most {_in_flight(each)} per {each['per']}" for each in document.get("budgets") or ()])
    guardrails = document.get("guardrails")
    guardrails = [_DEFAULT_GUARDRAIL] if guardrails is None else guardrails
    parts += _some([_guardrail(each) for each in guardrails]) or ["no guardrails"]
    return " · ".join(parts)


def _in_flight(rule: Mapping[str, Any]) -> str:
    return f"{rule['max_in_flight']:,} in flight"


def _some(texts: Sequence[str]) -> list[str]:
    rest = len(texts) - MAX_SHOWN
    return [*texts[:MAX_SHOWN], *([f"{rest:,} more"] if rest > 0 else [])]


def _waves(waves: Sequence[Mapping[str, Any]]) -> str:
    if len(waves) < 2:
        return "all devices in one wave"
    first = [_wave(number, each) for number, each in enumerate(waves[:-1], 1)]
    return ", then ".join(_some(first)) + ", then the rest"


def _wave(number: int, wave: Mapping[str, Any]) -> str:
    size, gate = wave.get("size"), wave.get("gate") or {}
    name = wave.get("name") or f"wave-{number}"
    parts = [f"{name} {_size(size)}" if size is not None else name]
    if gate.get("soak") is not None and read_duration(gate["soak"]):
        parts.append(f"soak {_spaced(gate['soak'])}")
    if gate.get("approval"):
        parts.append("approval")
    return ", ".join(parts)


def _size(size: int | str) -> str:
    return f"{size:,}" if isinstance(size, int) else _percent(size)


def _percent(share: str) -> str:
    return share.replace("%", " %")


def _spaced(duration: str) -> str:
    return f"{duration[:-1]} {_UNITS[duration[-1]]}"


def _schedule(schedule: Mapping[str, Any]) -> Iterator[str]:
    if schedule.get("start"):
        yield f"from {utc(datetime.fromisoformat(schedule['start']))}"
    if schedule.get("end"):
        yield f"until {utc(datetime.fromisoformat(schedule['end']))}"
    zone = schedule.get("time_zone") or "UTC"
    yield from _some([_window(each, zone) for each in schedule.get("windows") or ()])
    if schedule.get("ignore_freezes"):
        yield "ignores freezes"


def _window(window: Mapping[str, Any], zone: str) -> str:
    no = "not " if window.get("kind") == WindowKind.DENY else ""
    if window.get("cron") is None:
        start, end = (utc(datetime.fromisoformat(window[key])) for key in ("start", "end"))
        return f"{no}{'' if no else 'only '}{start.removesuffix(' UTC')} to {end}"
    found = _AT_A_TIME.fullmatch(window["cron"])
    minutes = round(read_duration(window["duration"]) / 60)
    zone = window.get("time_zone") or zone
    zone = "in each device's time zone" if zone == DEVICE_ZONE else zone
    if found is None or minutes >= _DAY_MINUTES:
        return f"{no}{'' if no else 'only '}at cron {window['cron']} for {_spaced(window['duration'])}, {zone}"
    opens = int(found[2]) * 60 + int(found[1])
    return f"{no}{_days(found[3])} {_clock(opens)}\N{EN DASH}{_clock(opens + minutes)} {zone}"


def _days(days: str) -> str:
    if days == "*":
        return "daily"
    return re.sub("[0-7]", lambda day: _DAYS[int(day[0])], days).replace("-", "\N{EN DASH}").replace(",", ", ")


def _clock(of_minutes: int) -> str:
    hours, minutes = divmod(of_minutes % _DAY_MINUTES, 60)
    return f"{hours:02}:{minutes:02}"


def _pace(pace: Mapping[str, Any]) -> Iterator[str]:
    per_minute, ramp = pace.get("per_minute"), pace.get("ramp")
    if per_minute is None:
        yield "no limit a minute"
    elif ramp:
        yield f"{ramp['from']:,} a minute, growing to {per_minute:,}"
    else:
        yield f"{per_minute:,} a minute"
    if pace.get("max_in_flight") is not None:
        yield f"at most {_in_flight(pace)}"


def _guardrail(guardrail: Mapping[str, Any]) -> str:
    action = guardrail.get("action", TripAction.ABORT)
    group = {Scope.SEGMENT: f"a {' and '.join(guardrail.get('per') or ())}", Scope.WAVE: "a wave"}.get(
        guardrail.get("scope", Scope.CAMPAIGN)
    )
    over = f"over {_percent(guardrail.get('threshold', '10%'))}"
    sure = " (sequential)" if guardrail.get("method") == Method.SEQUENTIAL else ""
    if group is None:
        return f"{_ACTIONS[action]} {over} failed{sure}"
    if action == TripAction.QUARANTINE:
        return f"{_ACTIONS[action]} {group} {over} failed{sure}"
    return f"{_ACTIONS[action]} {over} of {group} failed{sure}"
