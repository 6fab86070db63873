"""Fills the form for a new campaign from a policy document: a preset, or one that the tenant has stored."""

from __future__ import annotations

import re
from typing import Any

from rollwave.console.policy_form import DAY_MINUTES, MAX_ROWS, write
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, parse_data
from rollwave.domain.policy.document.units import read_duration
from rollwave.domain.policy.words import DEVICE_ZONE

Fields = dict[str, list[str]]
"""The values of the form's fields, by name."""

_NIGHTLY = re.compile(r"([0-9]{1,2}) ([0-9]{1,2}) \* \* (\*|[0-6](?:[-,][0-6])*)")

EMPTY: Fields = {"window": ["always"], "time_zone": ["UTC"], "order": ["hash"], "own_zone": [""]}


def values_of(document: PolicyDocument) -> Fields | None:
    """The fields that say what the document says. None: the form cannot show all of it."""
    try:
        fields = _fields(to_data(document))
        written = parse_data(write(fields).data) if fields is not None else None
    except (InvalidPolicy, ValueError, KeyError, TypeError):
        return None
    return fields if written is not None and _meaning(written) == _meaning(document) else None


def _meaning(document: PolicyDocument) -> dict[str, Any]:
    data = document.model_dump(mode="json", by_alias=True)
    data["order"] = data["order"] or ("hash" if document.waves else "id")
    for each in (data["schedule"] or {"windows": []})["windows"] + data["budgets"] + (data["guardrails"] or []):
        each.pop("name")  # only shown in sentences
    return data


def _fields(data: dict[str, Any]) -> Fields | None:
    waves = data.get("waves", [])
    if len(waves) > MAX_ROWS + 1 or any(len(data.get(key, [])) > 1 for key in ("budgets", "guardrails")):
        return None
    found: Fields = {key: list(value) for key, value in EMPTY.items()}
    _put(found, {"order": data.get("order") or ("hash" if waves else "id")})
    for row, wave in enumerate(waves[:-1]):
        gate = wave.get("gate", {})
        _put(found, {f"wave-{row}-size": wave.get("size", ""), f"wave-{row}-name": wave.get("name")})
        _put(found, {f"wave-{row}-{key}": gate.get(key) for key in ("success_rate", "soak")})
        _put(found, {f"wave-{row}-select": wave.get("select"), f"wave-{row}-approval": gate.get("approval") or None})
        found.setdefault(f"wave-{row}-size", [""])
    _put(found, {"rest_name": waves[-1].get("name") if waves else None})
    _put(found, _pace(data.get("pace", {})))
    _put(found, _guardrail(data))
    retry, deadlines = data.get("retry", {}), data.get("deadlines", {})
    found["retry_on"] = list(retry.get("on", ()))
    _put(found, {"max_attempts": retry.get("max_attempts"), "retry_delay": retry.get("delay")})
    _put(found, {"retry_max_delay": retry.get("max_delay")})
    _put(found, {f"deadline_{key}": deadlines.get(key) for key in ("answer", "progress", "total")})
    _put(found, _schedule(data.get("schedule", {})))
    found["window_day"] = _days(data.get("schedule", {}))
    return found


def _put(into: Fields, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            into[name] = [f"{value:g}" if isinstance(value, float) else str(value)]


def _pace(pace: dict[str, Any]) -> dict[str, Any]:
    ramp = {f"ramp_{key}": value for key, value in pace.get("ramp", {}).items()}
    return {"per_minute": pace.get("per_minute"), "max_in_flight": pace.get("max_in_flight"), **ramp}


def _guardrail(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in data.get("budgets", []):
        found |= {"budget_per": each["per"], "budget_max": each["max_in_flight"]}
    if "guardrails" not in data:  # the contract's own
        return {**found, "threshold": "10%", "trip_action": "abort"}
    for each in data["guardrails"]:
        found |= {key: each.get(key) for key in ("min_finished", "alpha", "scope")}
        found["trip_method"] = each.get("method")
        found |= {"threshold": each.get("threshold", "10%"), "trip_action": each.get("action", "abort")}
        found["per"] = " ".join(each["per"]) if "per" in each else None
    return found


def _schedule(schedule: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"time_zone": schedule.get("time_zone"), "at_end": None, "ignore_freezes": None}
    for key in ("start", "end"):
        found[key] = schedule[key].removesuffix("Z").removesuffix(":00") if key in schedule else None
    found["at_end"] = "on" if schedule.get("at_end") == "cancel" else None
    found["ignore_freezes"] = "on" if schedule.get("ignore_freezes") else None
    for each in schedule.get("windows", [])[:1]:
        if (found_at := _NIGHTLY.fullmatch(each["cron"])) is None:
            raise ValueError("the form has only windows that open at the same time on each of its days")
        opens = int(found_at[2]) * 60 + int(found_at[1])
        closes = (opens + int(read_duration(each["duration"]) // 60)) % DAY_MINUTES
        found |= {"window": "window", "window_from": _clock(opens), "window_until": _clock(closes)}
        found |= {"window_cutoff": each.get("cutoff"), "own_zone": "on" if each.get("time_zone") == DEVICE_ZONE else ""}
    return found


def _days(schedule: dict[str, Any]) -> list[str]:
    for each in schedule.get("windows", [])[:1]:
        days = each["cron"].split()[4]
        if days == "*":
            return []
        first, dash, last = days.partition("-")
        return [str(day) for day in range(int(first), int(last) + 1)] if dash else days.split(",")
    return []


def _clock(of_minutes: int) -> str:
    return f"{of_minutes // 60:02}:{of_minutes % 60:02}"
