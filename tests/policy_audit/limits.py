"""Caps, budgets and pace: how many devices are in flight, and how many got their first command in a time.

A limit holds for first commands. It may be exceeded where an edit has lowered it, or where an operator retries failed
devices, and then no first command follows until it holds again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.policy_audit.labels import group_of
from tests.policy_audit.snapshot import IN_FLIGHT, Campaign, Json, Row, size, state_of, wave_of


def _in_flight(campaign: Campaign) -> list[Row]:
    """Devices in flight, but those that an operator's retry has brought back."""
    return [each for each in campaign.devices if state_of(each) == IN_FLIGHT and not each["failed_before"]]


def _first_commands(campaign: Campaign, before: Campaign | None) -> list[Row]:
    """The devices that got their first command since another snapshot."""
    last = 0 if before is None else before.row["sent"]
    return [each for each in campaign.devices if (each["dispatch_number"] or 0) > last]


def _most(documents: Sequence[Json], limit: Callable[[Json], int | None]) -> int | None:
    """The largest of the limits that were in force; None: there was none."""
    found = [limit(each) for each in documents]
    numbers = [each for each in found if each is not None]
    return max(numbers) if len(numbers) == len(found) else None


def caps(campaign: Campaign, before: Campaign | None) -> Iterator[str]:
    """The caps of the campaign and of the present wave, and the limit on bytes in flight."""
    documents, fresh, in_flight = (
        campaign.documents_since(before),
        _first_commands(campaign, before),
        _in_flight(campaign),
    )
    if not fresh:
        return
    pace = [each.get("pace") or {} for each in documents]
    cap = _most(pace, lambda each: each.get("max_in_flight"))
    if cap is not None and len(in_flight) > cap:
        yield f"{len(in_flight)} devices are in flight, of {cap}"
    file = campaign.row["file_size_bytes"]
    places = _most(pace, lambda each: _downloads((each.get("bytes") or {}).get("in_flight"), file))
    if places is not None and len(in_flight) > places:
        yield f"{len(in_flight)} downloads of {file} bytes are in flight, of {places}"
    by_wave = Counter(wave_of(each) for each in in_flight if each["segment"] > 0)
    number = campaign.row["wave"]  # the cap of a wave applies until its gate opens
    earlier = 0 if before is None else before.row["wave"]
    if earlier == number and any(wave_of(each) == number for each in fresh):
        cap = _most(documents, lambda each: _wave_cap(each, number))
        if cap is not None and by_wave[number] > cap:
            yield f"{by_wave[number]} devices of wave {number} are in flight, of {cap}"


def _downloads(limit: str | None, file: int) -> int | None:
    return None if limit is None else max(1, int(size(limit) // file))


def _wave_cap(document: Json, number: int) -> int | None:
    waves = document.get("waves") or []
    cap: int | None = waves[number].get("max_in_flight") if number < len(waves) else None
    return cap


def budgets(campaign: Campaign, before: Campaign | None) -> Iterator[str]:
    """At most so many devices with the same value of a label are in flight. Devices without it have no limit."""
    fresh = {each["device_id"] for each in _first_commands(campaign, before)}
    if not fresh:
        return
    documents = campaign.documents_since(before)
    for rule in campaign.document.get("budgets") or []:
        most = _most(documents, lambda each: _budget(each, rule["per"]))  # noqa: B023
        if most is None:
            continue
        devices: dict[str, list[str]] = {}
        for each in _in_flight(campaign):
            value = group_of([rule["per"]], campaign.labels_of(each))[rule["per"]]
            if value is not None:
                devices.setdefault(value, []).append(each["device_id"])
        for value, ids in devices.items():
            if len(ids) > most and fresh & set(ids):
                yield f"{len(ids)} devices with {rule['per']} {value} are in flight, of {most}"


def budget_counts(campaign: Campaign) -> Iterator[str]:
    """The stored numbers of devices in flight by the value of a budget's label are those of the rows.

    A campaign that has ended sends nothing, and does not count its last devices.
    """
    if campaign.being_placed or campaign.row["status"] not in {"RUNNING", "PAUSED"}:
        return
    rows = Counter(
        (number, value)
        for each in campaign.devices
        if state_of(each) == IN_FLIGHT
        for number, value in enumerate(each["budget_values"] or (), start=1)
        if value is not None
    )
    values = campaign.budget_values
    stored = Counter({(each["budget"], each["value"]): each["in_flight"] for each in values if each["in_flight"]})
    if rows != stored:
        yield f"by budget and value, {dict(stored)} devices are counted in flight, the rows are {dict(rows)}"


def _budget(document: Json, label: str) -> int | None:
    found = [each["max_in_flight"] for each in document.get("budgets") or [] if each["per"] == label]
    return min(found) if found else None


@dataclass(frozen=True)
class _Dispatched:
    """The devices sent to so far at a time, and the devices per minute that may follow; None: any number."""

    at: datetime
    number: int
    per_minute: float | None


class Pace:
    """Compares the first commands of a campaign with its pace, over any time between two snapshots."""

    def __init__(self, tick: float) -> None:
        """``tick``: seconds."""
        self._tick = tick
        self._past: list[_Dispatched] = []

    def look(self, campaign: Campaign, before: Campaign | None) -> Iterator[str]:
        """Check the times that end with this snapshot, up to the last one without a pace."""
        rates = [
            _rate(each.get("pace") or {}, campaign.row["succeeded"] or 0) for each in campaign.documents_since(before)
        ]
        rate = None if None in rates else max(each for each in rates if each is not None)
        if rate is None:
            self._past = []
            return
        number = campaign.row["sent"]
        fastest = rate
        for each in reversed(self._past):
            fastest = max(fastest, each.per_minute or 0)
            span = (campaign.ended - each.at).total_seconds()
            # A snapshot may be at any time of a step, and a part of a device is carried over.
            most = fastest / 60 * (span + 2 * self._tick) + 2
            if number - each.number > most:
                yield f"{number - each.number} devices got their first command in {span:.2f} s, at {fastest:g} a minute"
                break
        self._past = [*self._past[-300:], _Dispatched(campaign.began, number, rate)]


def _rate(pace: Json, succeeded: int) -> float | None:
    rate, ramp = pace.get("per_minute"), pace.get("ramp")
    if rate is None or ramp is None:
        return None if rate is None else float(rate)
    factor: float = float(ramp["factor"]) ** (succeeded // ramp["every_succeeded"])
    return min(float(rate), float(ramp["from"]) * factor)
