"""Waves, segments and numbers: where devices stand, and who may have been sent to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

from tests.policy_audit.labels import segment_of
from tests.policy_audit.snapshot import IN_FLIGHT, STATES, WAITING, Campaign, Row, counted, number_of, state_of, wave_of

_ONE_VALUE = re.compile(r"^(\w+) == '?(\w+)'?$")
"""The selectors that the auditor knows."""


def cells(campaign: Campaign) -> Iterator[str]:
    """The numbers of each wave and segment are those of the rows."""
    found = counted([each for each in campaign.placed if state_of(each) != WAITING or _waits(campaign, each)])
    stored = Counter(
        {
            (each["wave"], each["segment"], state): each[state]
            for each in campaign.cells
            for state in STATES
            if each[state]
        }
    )
    if stored != found:
        differing = {
            key: (stored[key], found[key]) for key in stored.keys() | found.keys() if stored[key] != found[key]
        }
        yield f"cells differ from rows, by wave, segment and state: {differing}"


def held(campaign: Campaign) -> Iterator[str]:
    """Cells count the devices that budgets hold, and only devices that were never sent to are held."""
    rows = Counter(
        (wave_of(each), each["segment"]) for each in campaign.placed if each["held"] and _waits(campaign, each)
    )
    stored = Counter({(each["wave"], each["segment"]): each["held"] for each in campaign.cells if each["held"]})
    if rows != stored:
        yield f"cells count devices that budgets hold as {dict(stored)}, the rows are {dict(rows)}"


def _waits(campaign: Campaign, device: Row) -> bool:
    return state_of(device) == WAITING and (not campaign.being_placed or bool(device["reached"]))


def dispatch_numbers(campaign: Campaign) -> Iterator[str]:
    """Devices are numbered from 1 without gaps, each once, and as many as the campaign says were sent to."""
    numbers = sorted(each["dispatch_number"] for each in campaign.devices if each["dispatch_number"] is not None)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"dispatch numbers are {numbers}"
    if campaign.row["sent"] != len(numbers):
        yield f"{campaign.row['sent']} devices are counted as sent to, and {len(numbers)} have a dispatch number"
    without = [each["device_id"] for each in campaign.devices if each["attempt"] and each["dispatch_number"] is None]
    if without:
        yield f"sent to without a dispatch number: {without}"


def present_wave(campaign: Campaign) -> Iterator[str]:
    """No device of a later wave was sent to."""
    early = [each["device_id"] for each in campaign.placed if each["attempt"] and wave_of(each) > campaign.row["wave"]]
    if early:
        yield f"the present wave is {campaign.row['wave']}, and devices of later ones were sent to: {early}"


def segments(campaign: Campaign) -> Iterator[str]:
    """Each device that may still be sent to is in the segment that its own labels make."""
    if campaign.being_placed:
        return
    for each in campaign.placed:
        row = campaign.segments.get(each["segment"])
        stored = None if row is None else json.loads(row["labels"])
        own = segment_of(campaign.document, campaign.labels_of(each))
        if state_of(each) in {WAITING, IN_FLIGHT} and stored != own:
            yield f"{each['device_id']} is in a segment of {stored}, and its labels are {own}"


def sizes(campaign: Campaign) -> Iterator[str]:
    """Each wave has the devices that its size and its selector say."""
    if campaign.being_placed or not campaign.waves:
        return
    rules = campaign.document.get("waves") or []
    placed = Counter(wave_of(each) for each in campaign.placed)
    sent = Counter(wave_of(each) for each in campaign.placed if each["attempt"])
    left = targets = len(campaign.placed)
    for number, rule in enumerate(rules):
        devices, wanted = placed[number], rule.get("size")
        if wanted is not None:
            most = number_of(wanted, targets)
            edited = campaign.revision > 1
            if devices > max(most, sent[number] if edited else 0):
                yield f"wave {number} has {devices} devices, of {most}"
            if "select" not in rule and not edited and devices < min(most, left):
                yield f"wave {number} has {devices} devices, though {left} were left for its {most}"
        left -= devices
        yield from _selected(campaign, number, rule.get("select"))
    unknown = [number for number in placed if number >= max(1, len(rules))]
    if unknown:
        yield f"devices are in waves that the document does not have: {unknown}"


def _selected(campaign: Campaign, number: int, select: str | None) -> Iterator[str]:
    found = None if select is None else _ONE_VALUE.match(select)
    if found is None:
        return
    key, value = found.groups()
    others = [
        each["device_id"]
        for each in campaign.placed
        if wave_of(each) == number and campaign.labels_of(each).get(key) != value
    ]
    if others and campaign.revision == 1:
        yield f"wave {number} selects {select}, and has {others}"
