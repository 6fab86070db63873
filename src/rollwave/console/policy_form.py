"""Writes a policy document from the fields of the form for a new campaign.

The way is one-way: the form writes the document, and a document that the form cannot show is edited as text. Values are
passed on as they were typed where they cannot be read, so that the parser of documents says what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from rollwave.domain.policy.document.located import Path
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, Problem, parse_data
from rollwave.domain.policy.words import DEVICE_ZONE

Values: TypeAlias = Mapping[str, Sequence[str]]
"""The values of the form's fields, by name. A field that may be chosen several times has several."""

MAX_ROWS = 20
"""Maximum number of waves in the form, beside the last one."""

GENERAL = "policy"
"""The field beside which a problem is shown that belongs to no field of the form."""

DAY_MINUTES = 24 * 60

_digits = re.compile(r"[0-9][0-9 ,_']*")
_clock = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_local_time = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?")


@dataclass(frozen=True, slots=True)
class Written:
    """The ``data`` of a document, and the form's ``fields`` that its parts come from.

    ``unreadable``: what is wrong with times of the day, which the document has in another form, by field.
    """

    data: dict[str, Any]
    fields: Mapping[Path, str]
    unreadable: Mapping[str, str]

    def field_of(self, problem: Problem) -> str:
        """The field beside which a problem is shown: that of its part, or of the nearest part around it."""
        for length in range(len(problem.path), 0, -1):
            if (found := self.fields.get(problem.path[:length])) is not None:
                return found
        return GENERAL

    def messages(self, error: InvalidPolicy) -> dict[str, str]:
        """What is wrong, by field. A field with several problems shows the first."""
        found = dict(self.unreadable)
        for each in error.problems:
            name = self.field_of(each)
            where = f"{each.where}: " if name == GENERAL and each.where else ""
            found.setdefault(name, where + each.placed)
        return found


@dataclass(slots=True)
class _Writer:
    values: Values
    fields: dict[Path, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        given = self.values.get(name, ())
        return given[0].strip() if given else ""

    def ticked(self, name: str) -> bool:
        return bool(self.text(name))

    def put(self, into: dict[str, Any], path: Path, key: str, name: str, value: object) -> None:
        """Set a key unless its field is empty, and remember which field it comes from."""
        self.fields[(*path, key)] = name
        if value not in ("", None):
            into[key] = value


class Checked(NamedTuple):
    """The document that the fields say. ``document`` None: ``messages`` say what is wrong, by field."""

    document: PolicyDocument | None
    messages: Mapping[str, str]


def read(values: Values) -> Checked:
    """Write the document that the fields say, and check it."""
    written = write(values)
    try:
        document = parse_data(written.data)
    except InvalidPolicy as error:
        return Checked(None, written.messages(error))
    return Checked(None, written.unreadable) if written.unreadable else Checked(document, {})


def write(values: Values) -> Written:
    """Write the document that the fields say. It is not checked."""
    writer = _Writer(values)
    data: dict[str, Any] = {"version": 1, "order": writer.text("order") or "hash"}
    writer.fields[("order",)] = "order"
    parts = {
        "waves": _waves(writer),
        "pace": _pace(writer),
        "budgets": _budgets(writer),
        "guardrails": _guardrails(writer),
        "retry": _retry(writer),
        "deadlines": _deadlines(writer),
        "schedule": _schedule(writer),
    }
    # No guardrail is a decision, and stands in the document as an empty list. Other empty parts mean their defaults.
    data |= {key: part for key, part in parts.items() if part or key == "guardrails"}
    return Written(data, writer.fields, writer.unreadable)


def rows_of(values: Values) -> list[int]:
    """The numbers of the form's waves, without the last one, in order."""
    found = {int(match[1]) for name in values if (match := re.fullmatch(r"wave-([0-9]{1,3})-size", name))}
    return sorted(found)[:MAX_ROWS]


def _waves(form: _Writer) -> list[dict[str, Any]]:
    waves: list[dict[str, Any]] = []
    for row in rows_of(form.values):
        path: Path = ("waves", len(waves))
        wave: dict[str, Any] = {}
        form.fields[path] = f"wave-{row}-size"
        form.put(wave, path, "name", f"wave-{row}-name", form.text(f"wave-{row}-name"))
        form.put(wave, path, "size", f"wave-{row}-size", devices(form.text(f"wave-{row}-size")))
        form.put(wave, path, "select", f"wave-{row}-select", form.text(f"wave-{row}-select"))
        if gate := _gate(form, row, (*path, "gate")):
            wave["gate"] = gate
        waves.append(wave)
    if waves:
        last: dict[str, Any] = {}
        form.put(last, ("waves", len(waves)), "name", "rest_name", form.text("rest_name") or "rest")
        waves.append(last)
    return waves


def _gate(form: _Writer, row: int, path: Path) -> dict[str, Any]:
    gate: dict[str, Any] = {}
    name = f"wave-{row}-success_rate"
    form.put(gate, path, "success_rate", name, share(form.text(name)))
    form.put(gate, path, "soak", f"wave-{row}-soak", duration(form.text(f"wave-{row}-soak")))
    if form.ticked(f"wave-{row}-approval"):
        gate["approval"] = True
    return gate


def _pace(form: _Writer) -> dict[str, Any]:
    pace: dict[str, Any] = {}
    form.put(pace, ("pace",), "per_minute", "per_minute", number(form.text("per_minute")))
    form.put(pace, ("pace",), "max_in_flight", "max_in_flight", number(form.text("max_in_flight")))
    ramp: dict[str, Any] = {}
    for key in ("from", "factor", "every_succeeded"):
        form.put(ramp, ("pace", "ramp"), key, f"ramp_{key}", number(form.text(f"ramp_{key}")))
    form.fields["pace", "ramp"] = "ramp_from"
    if ramp:
        pace["ramp"] = ramp
    return pace


def _budgets(form: _Writer) -> list[dict[str, Any]]:
    budget: dict[str, Any] = {}
    path: Path = ("budgets", 0)
    form.put(budget, path, "per", "budget_per", form.text("budget_per"))
    form.put(budget, path, "max_in_flight", "budget_max", number(form.text("budget_max")))
    return [{"name": f"per-{budget.get('per', 'label')}", **budget}] if budget else []


def _guardrails(form: _Writer) -> list[dict[str, Any]]:
    rule: dict[str, Any] = {}
    path: Path = ("guardrails", 0)
    form.put(rule, path, "threshold", "threshold", share(form.text("threshold")))
    if not rule:
        return []
    method, scope = form.text("trip_method") or "ratio", form.text("scope") or "campaign"
    form.put(rule, path, "method", "trip_method", "" if method == "ratio" else method)
    form.put(rule, path, "min_finished", "min_finished", number(form.text("min_finished")))
    form.put(rule, path, "alpha", "alpha", number(form.text("alpha")) if method == "sequential" else "")
    form.put(rule, path, "scope", "scope", "" if scope == "campaign" else scope)
    form.put(rule, path, "per", "per", words(form.text("per")) if scope == "segment" else None)
    form.put(rule, path, "action", "trip_action", form.text("trip_action") or "abort")
    return [{"name": "failures", **rule}]


def _retry(form: _Writer) -> dict[str, Any]:
    retry: dict[str, Any] = {}
    chosen = [each for each in form.values.get("retry_on", ()) if each]
    form.put(retry, ("retry",), "on", "retry_on", chosen or None)
    form.put(retry, ("retry",), "max_attempts", "max_attempts", number(form.text("max_attempts")))
    form.put(retry, ("retry",), "delay", "retry_delay", duration(form.text("retry_delay")))
    form.put(retry, ("retry",), "max_delay", "retry_max_delay", duration(form.text("retry_max_delay")))
    return retry


def _deadlines(form: _Writer) -> dict[str, Any]:
    deadlines: dict[str, Any] = {}
    for key in ("answer", "progress", "total"):
        form.put(deadlines, ("deadlines",), key, f"deadline_{key}", duration(form.text(f"deadline_{key}")))
    return deadlines


def _schedule(form: _Writer) -> dict[str, Any]:
    schedule: dict[str, Any] = {}
    path: Path = ("schedule",)
    zone = form.text("time_zone")
    form.put(schedule, path, "time_zone", "time_zone", "" if zone == "UTC" else zone)
    form.put(schedule, path, "start", "start", moment(form.text("start")))
    form.put(schedule, path, "end", "end", moment(form.text("end")))
    form.put(schedule, path, "at_end", "at_end", "cancel" if form.ticked("at_end") else "")
    if form.text("window") == "window":
        schedule["windows"] = [_window(form)]
    if form.ticked("ignore_freezes"):
        schedule["ignore_freezes"] = True
    return schedule


def _window(form: _Writer) -> dict[str, Any]:
    path: Path = ("schedule", "windows", 0)
    form.fields[path] = "window_from"
    form.fields[(*path, "cron")] = "window_from"
    form.fields[(*path, "duration")] = "window_until"
    window: dict[str, Any] = {"name": "window", "kind": "allow"}
    opens, closes = _time_of_day(form, "window_from"), _time_of_day(form, "window_until")
    long = (closes - opens) % DAY_MINUTES or DAY_MINUTES
    window |= {"cron": f"{opens % 60} {opens // 60} * * {_days(form)}", "duration": _span(long)}
    form.put(window, path, "cutoff", "window_cutoff", duration(form.text("window_cutoff")))
    if form.ticked("own_zone"):
        window["time_zone"] = DEVICE_ZONE
    return window


def _time_of_day(form: _Writer, name: str) -> int:
    """Minutes since midnight. Midnight where the field cannot be read."""
    found = _clock.fullmatch(form.text(name))
    if found is None:
        form.unreadable[name] = f"{form.text(name)[:20]!r} is not a time of the day such as 02:00"
        return 0
    return int(found[1]) * 60 + int(found[2])


def _days(form: _Writer) -> str:
    chosen = sorted({int(each) for each in form.values.get("window_day", ()) if each in "0123456" and each})
    if len(chosen) in {0, 7}:
        return "*"
    run = chosen == list(range(chosen[0], chosen[-1] + 1)) and len(chosen) > 2
    return f"{chosen[0]}-{chosen[-1]}" if run else ",".join(map(str, chosen))


def _span(of_minutes: int) -> str:
    return f"{of_minutes // 60}h" if of_minutes % 60 == 0 else f"{of_minutes}m"


def number(text: str) -> int | float | str:
    """The number that a text says, or the text. ``1,200`` and ``1 200`` are 1200."""
    if _digits.fullmatch(text) and len(text) < 20:
        return int(re.sub(r"[ ,_']", "", text))
    try:
        return float(text) if re.fullmatch(r"[0-9]{1,15}\.[0-9]{1,15}", text) else text
    except ValueError:
        return text


def share(text: str) -> str:
    """A share as the document has it: ``5``, ``5 %`` and ``5%`` are ``5%``."""
    plain = text.replace(" ", "")
    return plain if not plain or plain.endswith("%") else f"{plain}%"


def devices(text: str) -> int | float | str:
    """A number of devices, or a share of them: with the sign ``%``."""
    return share(text) if text.endswith("%") else number(text)


def duration(text: str) -> str:
    """A duration as the document has it: ``2 h`` is ``2h``."""
    return re.sub(r"(?<=[0-9]) +(?=[smhd]$)", "", text)


def moment(text: str) -> str:
    """A time of a field for local times, which this form has in UTC."""
    found = _local_time.fullmatch(text)
    return text if not found else f"{text}Z" if found[1] else f"{text}:00Z"


def words(text: str) -> list[str] | None:
    """The words that commas or blanks part. None: there are none."""
    return [each for each in re.split(r"[ ,]+", text) if each] or None
