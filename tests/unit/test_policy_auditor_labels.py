"""The auditor of policy documents knows labels, zones and quarantine without the engine's segments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.policy_audit.auditor import PolicyAuditor
from tests.policy_audit.labels import segment_of
from tests.policy_audit.snapshot import EVER, Campaign
from tests.policy_audit.wire import Period, Wire
from tests.unit.test_policy_auditor import CLAIM, FAILED, NOW, campaign, device, window

BY_SITE = {
    "guardrails": [
        {"name": "sites", "threshold": "10%", "scope": "segment", "per": ["site"], "action": "quarantine"},
    ]
}
LABELS = {"dev-1": {"site": "a"}, "dev-2": {"site": "a"}, "dev-3": {"site": "b"}}
SEGMENTS = {
    1: {"labels": '{"site": "a"}', "quarantined_at": None},
    2: {"labels": '{"site": "b"}', "quarantined_at": None},
}
SHUT = {**SEGMENTS, 1: {"labels": '{"site": "a"}', "quarantined_at": NOW}}


def by_site(*, tripped: bool = False, at: float = 0.0, events: int = 0, **changed: Any) -> Campaign:
    """A campaign whose first device of site a has failed, as ``dev-3`` waits in site b. ``tripped``: its test has."""
    devices = device(1, 0, "FAILED", 1, **FAILED), device(2, 0), device(3, 0, segment=2)
    test = {
        "number": 1, "guardrail": "sites", "wave": -1, "labels": '{"site": "a"}', "began_after": 0, "of_groups": 2,
        "finished": 1, "failed": 1, "tripped_at": NOW if tripped else None,
    }  # fmt: skip
    released = [{"id": n + 1, "event": "segment_released", "detail": json.dumps({"segment": 1})} for n in range(events)]
    found = campaign(*devices, document=BY_SITE, at=at)
    kept = {"tests": [test], "labels": LABELS, "segments": SHUT if tripped else SEGMENTS, "events": released}
    return replace(found, **{**kept, **changed})


def wrong(*snapshots: Campaign, claimed: Mapping[str, object] | None = None) -> str:
    """What the auditor finds. ``claimed``: a claim that is read with the last snapshot."""
    auditor = PolicyAuditor(tick=1.0)
    found: list[str] = []
    for each in snapshots:
        found += auditor.check(each, [{**CLAIM, **claimed}] if claimed and each is snapshots[-1] else ())
    return "\n".join(found)


def test_the_segment_of_a_document_has_the_labels_that_it_mentions() -> None:
    labels = {"site": 5, "time_zone": "Asia/Tokyo", "extra": "x"}
    assert segment_of(BY_SITE, labels) == {"site": "5"}
    assert segment_of(BY_SITE, {}) == {"site": None}
    night = {"schedule": {"windows": [window("allow", 2, time_zone="device")]}}
    assert segment_of(night, labels) == {"time_zone": "Asia/Tokyo"}
    assert segment_of({}, labels) == {}


def test_devices_in_segments_of_other_labels_are_found() -> None:
    assert wrong(by_site(tripped=True)) == ""
    moved = {**LABELS, "dev-3": {"site": "a"}}
    assert "dev-3 is in a segment of {'site': 'b'}, and its labels are {'site': 'a'}" in wrong(by_site(labels=moved))


def test_a_guardrail_that_has_not_tripped_or_has_no_test_is_found() -> None:
    assert "has not tripped with 1 of 1 failed" in wrong(by_site())
    assert "no test of guardrail sites is about it" in wrong(by_site(tests=[]))


def test_a_test_begins_anew_only_for_a_reason() -> None:
    anew = [{**by_site().tests[0], "finished": 0, "failed": 0, "began_after": 1}]
    for events, text in ((0, "began anew without a reason"), (1, "")):
        after = by_site(at=1, events=events, tests=anew, segments=SEGMENTS)
        found = wrong(by_site(tripped=True), after)
        assert text in found if text else not found


def test_a_segment_that_is_not_under_quarantine_though_its_devices_are_is_found() -> None:
    assert "dev-2 is under quarantine, its segment says False" in wrong(by_site(tripped=True, segments=SEGMENTS))
    shut = {**SHUT, 2: {"labels": '{"site": "b"}', "quarantined_at": NOW}}
    assert "dev-3 is not under quarantine, its segment says True" in wrong(by_site(tripped=True, segments=shut))


@pytest.mark.parametrize(
    ("claimed", "events", "text"),
    [
        ({"device_id": "dev-2"}, 0, "dev-2 was claimed"),
        ({"device_id": "dev-3"}, 0, ""),
        ({"device_id": "dev-2"}, 1, ""),
        ({"device_id": "dev-2", "at": NOW - timedelta(minutes=1)}, 0, ""),
    ],
)
def test_a_claim_of_a_device_under_quarantine_is_found(claimed: Mapping[str, object], events: int, text: str) -> None:
    snapshots = by_site(tripped=True), by_site(tripped=True, at=2, events=events)
    found = wrong(*snapshots, claimed={"at": NOW + timedelta(seconds=1), "campaign_id": 1, **claimed})
    assert "in quarantine" in found if text else "in quarantine" not in found


@dataclass(frozen=True)
class Received:
    tenant: str = "north"
    device: str = "dev-1"
    campaign: int = 1
    attempt: int = 1


def late(wire: Wire, at: float, quarantined: float | None = None) -> list[str]:
    """What is wrong with a command that arrives ``at`` seconds after NOW; quarantined since so many seconds."""
    periods = {} if quarantined is None else {1: {"dev-1": [Period(moment(quarantined), EVER, "quarantine")]}}
    return [each.split(": ")[1] for each in wire.late([(moment(at), Received())], periods)]


def moment(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_a_command_that_arrives_long_after_a_gate_has_closed_is_found() -> None:
    brake = {"north": [Period(moment(0), moment(10), "halt halt")]}
    assert [late(Wire(halts=brake), at) for at in (1, 5, 10, 20)] == [[], ["halt halt"], [], []]
    assert late(Wire(halts=brake, documents={1: [(moment(-60), {"schedule": {"ignore_freezes": True}})]}), 5)
    assert late(Wire(freezes=brake), 5)
    assert not late(Wire(freezes=brake, documents={1: [(moment(-60), {"schedule": {"ignore_freezes": True}})]}), 5)
    assert late(Wire(), 5, quarantined=1) == ["quarantine"]


def test_a_command_that_was_claimed_before_an_edit_and_arrives_long_after_it_is_found() -> None:
    documents: Any = {1: [(moment(-60), {}), (moment(0), {})]}

    def found(*claims: tuple[datetime, int], at: float = 5) -> list[str]:
        return late(Wire(documents=documents, claims={(1, "dev-1", 1): list(claims)}), at)

    before, after = (moment(-1), 1), (moment(1), 2)
    assert [each.startswith("claimed at") for each in found(before)] == [True]
    assert not found(before, at=1), "it may have been on its way"
    assert not found(before, after)
    assert found(before, (moment(6), 2)), "it was claimed again later"
    wire = Wire(documents=documents, claims={(1, "dev-1", 1): [before]})
    answer = [(moment(1), Received()), (moment(5), Received())]
    assert not list(wire.late(answer, {})), "the same attempt again may answer a question"


def test_a_command_that_arrives_while_the_windows_are_closed_in_its_devices_zone_is_found() -> None:
    closed = {"schedule": {"windows": [window("allow", 17, time_zone="device")]}}
    tokyo, utc = ({"north": {"dev-1": {"time_zone": zone}}} for zone in ("Asia/Tokyo", "UTC"))
    assert not late(Wire(documents={1: [(moment(-60), closed)]}, labels=tokyo), 0)
    assert late(Wire(documents={1: [(moment(-60), closed)]}, labels=utc), 0) == ["a closed window"]
    assert not late(Wire(documents={1: [(moment(-60), {}), (moment(-1), closed)]}, labels=utc), 0), "just edited"
