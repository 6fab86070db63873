"""Random policy documents, as plain data."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from rollwave.domain.retry import Reason

counts = st.integers(1, 2**31 - 1)
shares = st.one_of(st.just("100%"), st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,9})?%", fullmatch=True))
devices = counts | shares
durations = st.from_regex(r"([1-9][0-9]{0,2}(\.[0-9]{1,3})?(s|m|h))|[1-9]d", fullmatch=True)
sizes = st.from_regex(r"[1-9][0-9]{0,3}(\.[0-9]{1,3})?(B|KiB|MiB|GiB|TiB)", fullmatch=True)
labels = st.sampled_from(["site", "ring", "hardware_revision", "on", "no", "null", "true", "a.b:c-d", "_1e3"])
names = st.sampled_from(["canary", "on", "no", "null", "0o17", "1e3", "12", "2027-01-11", "0x1F", "1.5", "a-b_c.d"])
texts = st.sampled_from(["ring == canary", 'note == "é ☃\\n: #"', "a == 'x' and not has(b)", "n > 1e3", "on == yes"])
times = st.from_regex(
    r"20[0-9]{2}-0[1-9]-[0-2][1-8]T1[0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[-+]0[0-9]:30)", fullmatch=True
)


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with some of these keys."""
    return st.fixed_dictionaries({}, optional={key.removesuffix("_"): value for key, value in keys.items()})


def all_of(
    needed: dict[str, st.SearchStrategy[Any]], **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with all of the ``needed`` keys, and some of ``more``."""
    return st.fixed_dictionaries(needed, optional=more)


_gates = some(
    success_rate=shares,
    min_finished=shares,
    soak=durations,
    approval=st.booleans(),
    on_fail=st.sampled_from(["pause", "abort"]),
)
_first_waves = st.lists(
    all_of({"size": devices}, name=names, select=texts, max_in_flight=counts, gate=_gates),
    max_size=3,
    unique_by=lambda each: each.get("name", id(each)),
)
_waves = st.builds(lambda first: [*first, {"name": "rest"}], _first_waves)
_ramps = st.fixed_dictionaries({"from": counts, "factor": st.floats(1, 1000), "every_succeeded": counts})
_paces = all_of(
    {"per_minute": counts},
    ramp=_ramps,
    max_in_flight=counts,
    bytes=some(in_flight=sizes, per_second=sizes),
    start_jitter=durations,
)
_guardrails = all_of(
    {"threshold": st.sampled_from(["5%", "0.5%", "99.999999999%"])},
    name=names,
    count=st.lists(st.sampled_from([each.value for each in Reason]), min_size=1, unique=True),
    codes=st.lists(st.from_regex(r"[A-Z0-9_]{1,8}", fullmatch=True), min_size=1, max_size=4, unique=True),
    method=st.sampled_from(["ratio", "sequential"]),
    min_finished=counts,
    alpha=st.floats(0.001, 0.5),
    per=st.lists(labels, min_size=1, max_size=3, unique=True),
    action=st.sampled_from(["abort", "pause"]),
)
_nights = all_of(
    {"kind": st.just("allow"), "cron": st.just("0 2 * * 1-5"), "duration": st.just("2h")},
    cutoff=st.just("20m"),
    time_zone=st.sampled_from(["device", "UTC", "Asia/Tokyo"]),
)
_holidays = st.just({"kind": "deny", "start": "2027-12-18T00:00:00Z", "end": "2028-01-07T00:00:00+09:00"})
_windows = _nights | _holidays
_schedules = some(
    time_zone=st.sampled_from(["UTC", "Europe/Paris"]),
    start=times,
    at_end=st.sampled_from(["stop", "cancel"]),
    windows=st.lists(_windows, max_size=3),
    ignore_freezes=st.booleans(),
)
_reasons = st.lists(st.sampled_from(["no_answer", "no_progress", "reported", "rejected"]), unique=True)

policies = some(
    version=st.just(1),
    order=st.sampled_from(["hash", "id", "label:on", "label:site"]),
    waves=_waves,
    pace=_paces,
    budgets=st.lists(st.fixed_dictionaries({"per": labels, "max_in_flight": counts}), max_size=4),
    guardrails=st.lists(_guardrails, max_size=3, unique_by=lambda each: each.get("name", id(each))),
    retry=some(on=_reasons, max_attempts=st.integers(1, 100), delay=durations, max_delay=durations),
    deadlines=some(answer=durations, progress=durations, total=durations),
    schedule=_schedules,
)
"""Documents that keep every rule."""
