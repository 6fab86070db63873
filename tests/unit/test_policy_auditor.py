"""The auditor of policy documents finds each violation, and none in campaigns that keep the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.policy_audit.auditor import PolicyAuditor
from tests.policy_audit.claims import Claims, is_open
from tests.policy_audit.snapshot import Campaign, counted

NOW = datetime(2027, 1, 11, 8, 30, tzinfo=UTC)
DOCUMENT = {
    "waves": [
        {"name": "canary", "size": 2, "max_in_flight": 1, "gate": {"min_finished": 1, "success_rate": "50%"}},
        {"name": "rest"},
    ],
    "pace": {"per_minute": 60, "max_in_flight": 2, "bytes": {"in_flight": "2000B"}},
    "budgets": [{"name": "sites", "per": "site", "max_in_flight": 1}],
    "guardrails": [{"name": "failures", "threshold": "50%"}],
}


def device(number: int, wave: int, status: str = "PENDING", sent: int | None = None, **more: object) -> dict[str, Any]:
    """A device of a wave. ``sent``: its dispatch number."""
    return {
        "device_id": f"dev-{number}", "status": status, "attempt": int(sent is not None), "dispatch_number": sent,
        "segment": 1, "position": (wave + 1) * 2**44 + number, "failed_before": None, "failed_reason": None,
        "error_code": None, "reached": None, "held": False, "budget_values": None, **more,
    }  # fmt: skip


def labels_of(*devices: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """A site for each device."""
    return {each["device_id"]: {"site": each["device_id"], "time_zone": "Asia/Tokyo"} for each in devices}


def campaign(
    *devices: Mapping[str, Any], document: Mapping[str, Any] = DOCUMENT, at: float = 0.0, **columns: object
) -> Campaign:
    """A campaign whose cells, tests and counters are those of its devices."""
    row = {
        "tenant_id": "north", "id": 1, "status": "RUNNING", "wave": 0, "policy_revision": 1, "targeted_devices": None,
        "sent": sum(each["dispatch_number"] is not None for each in devices), "file_size_bytes": 1000,
        "succeeded": sum(each["status"] == "SUCCESS" for each in devices), **columns,
    }  # fmt: skip
    states: dict[tuple[int, int], dict[str, int]] = {}
    for (wave, segment, state), number in counted(devices).items():
        empty = {"held": 0, "waiting": 0, "in_flight": 0, "succeeded": 0, "failed": 0, "skipped": 0}
        states.setdefault((wave, segment), empty)[state] = number
    failed = sum(each["status"] == "FAILED" for each in devices)
    test = {
        "number": 1, "guardrail": "failures", "wave": -1, "labels": "{}", "began_after": 0, "of_groups": 1,
        "generation": 1,
        "finished": failed + sum(each["status"] == "SUCCESS" for each in devices), "failed": failed, "tripped_at": None,
    }  # fmt: skip
    gate = {"promoted_by": None, "soak_from": None, "passed_at": NOW}
    moment = NOW + timedelta(seconds=at)
    return Campaign(
        row, {1: document}, devices, [{"number": n, **gate} for n in (0, 1)],
        {1: {"labels": "{}", "quarantined_at": None}},
        [{"wave": key[0], "segment": key[1], **numbers} for key, numbers in states.items()],
        [test], [], [], labels_of(*devices), (), moment, moment,
    )  # fmt: skip


def wrong(*snapshots: Campaign) -> str:
    """What the auditor finds in snapshots, one after another."""
    auditor = PolicyAuditor(tick=1.0)
    return "\n".join(found for each in snapshots for found in auditor.check(each))


CANARY = device(1, 0, "SUCCESS", 1), device(2, 0)
REST = device(3, 1), device(4, 1), device(5, 1)
FAILED = {"failed_reason": "reported"}


def test_a_campaign_that_keeps_the_rules_has_no_violation() -> None:
    first = campaign(device(1, 0), device(2, 0), *REST)
    sent = campaign(device(1, 0, "DOWNLOADING", 1), device(2, 0), *REST, at=2)
    ended = campaign(*CANARY, *REST, at=3)
    opened = campaign(*CANARY, device(3, 1, "DOWNLOADING", 2), device(4, 1), device(5, 1), at=4, wave=1)
    assert wrong(first, sent, ended, opened) == ""


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (replace(campaign(*CANARY, *REST), cells=[]), "cells differ from rows"),
        (campaign(device(1, 0, "SUCCESS", 2), device(2, 0), *REST), "dispatch numbers are [2]"),
        (campaign(*CANARY, device(3, 1, held=True)), "devices that budgets hold as {}, the rows are {(1, 1): 1}"),
        (
            campaign(device(1, 0, "DOWNLOADING", 1, budget_values=["s"]), device(2, 0), *REST),
            "{} devices are counted in flight, the rows are {(1, 's'): 1}",
        ),
        (campaign(*CANARY, *REST, sent=3), "3 devices are counted as sent to, and 1 have"),
        (campaign(device(1, 0, "SUCCESS", attempt=1), device(2, 0), *REST), "without a dispatch number"),
        (campaign(*CANARY, device(3, 1, "SUCCESS", 2)), "devices of later ones were sent to: ['dev-3']"),
        (campaign(*CANARY, device(6, 0), *REST), "wave 0 has 3 devices, of 2"),
        (campaign(CANARY[0], *REST), "wave 0 has 1 devices, though 4 were left"),
        (campaign(*CANARY, device(3, 2)), "waves that the document does not have: [2]"),
        (
            campaign(device(1, 0, "PENDING", 1), device(2, 0, "DOWNLOADING", 2), *REST),
            "2 devices of wave 0 are in flight",
        ),
        (
            campaign(*CANARY, *(device(n, 1, "DOWNLOADING", n - 1) for n in (3, 4, 5)), wave=1),
            "3 devices are in flight, of 2",
        ),
        (
            campaign(*CANARY, *(device(n, 1, "DOWNLOADING", n - 1) for n in (3, 4, 5)), wave=1),
            "3 downloads of 1000 bytes are in flight, of 2",
        ),
        (
            replace(
                campaign(*CANARY, device(3, 1, "INSTALLING", 2), device(4, 1, "DOWNLOADING", 3), wave=1),
                labels={"dev-3": {"site": "s"}, "dev-4": {"site": "s"}},
            ),
            "2 devices with site s are in flight, of 1",
        ),
        (
            replace(campaign(*CANARY, *REST), tests=[{**campaign().tests[0], "finished": 2}]),
            "counts 2 finished, 0 failed",
        ),
        (campaign(device(1, 0, "FAILED", 1, **FAILED), device(2, 0), *REST), "has not tripped with 1 of 1 failed"),
    ],
)  # fmt: skip
def test_each_violation_in_one_snapshot_is_found(found: Campaign, text: str) -> None:
    assert text in wrong(found)


def passed(gate: Mapping[str, Any], *devices: Mapping[str, Any], **of_wave: object) -> str:
    """What is wrong when the first wave of these devices was passed by this gate."""
    document = {"waves": [{"name": "canary", "size": 2, "gate": gate}, {"name": "rest"}], "guardrails": []}
    before = replace(campaign(*devices, *REST, document=document), tests=[])
    after = replace(campaign(*devices, *REST, document=document, wave=1), tests=[])
    return wrong(before, replace(after, waves=[{**after.waves[0], **of_wave}, after.waves[1]]))


def test_a_wave_that_was_opened_too_early_is_found() -> None:
    failed = device(2, 0, "FAILED", 2, **FAILED)
    assert "when at most 1 of 2 devices had finished" in passed({}, *CANARY)
    assert passed({}, *CANARY, promoted_by="key-1") == ""
    assert passed({"min_finished": "50%"}, *CANARY) == ""
    assert "without an approval" in passed({"min_finished": 1, "approval": True}, *CANARY)
    assert "at most 1 had succeeded and 1 had failed" in passed({"success_rate": "51%"}, CANARY[0], failed)
    assert passed({"success_rate": "50%"}, CANARY[0], failed) == ""
    soak = {"min_finished": 1, "soak": "10s"}
    assert "its soak of 10.0 s began at None" in passed(soak, *CANARY)
    assert passed(soak, *CANARY, soak_from=NOW - timedelta(seconds=10)) == ""


def test_a_wave_that_was_opened_with_a_guardrail_over_its_threshold_is_found() -> None:
    rule = {"name": "failures", "method": "sequential", "threshold": "5%"}
    document = {"waves": [{"name": "canary", "size": 3}, {"name": "rest"}], "guardrails": [rule]}
    devices = [*(device(n, 0, "FAILED", n, **FAILED) for n in (1, 2, 3)), *REST]
    bucket = {"test": 1, "first": 1, "dispatched": 3, "finished": 3, "failed": 3}
    before = campaign(*devices, document=document)
    before = replace(before, tests=[{**before.tests[0], "dispatched": 3}], buckets=[bucket])
    after = replace(before, row={**before.row, "wave": 1})
    assert "these tests of guardrails were over their thresholds" in wrong(before, after)
    promoted = [{**after.waves[0], "promoted_by": "key-1"}, after.waves[1]]
    assert wrong(before, replace(after, waves=promoted)) == ""


def test_more_first_commands_than_the_pace_allows_are_found() -> None:
    document = {"pace": {"per_minute": 60}, "guardrails": []}

    def snapshot(sent: int, at: float) -> Campaign:
        devices = [device(n, 0, "SUCCESS", n) for n in range(1, sent + 1)]
        return replace(campaign(*devices, document=document, at=at), tests=[])

    assert wrong(snapshot(0, 0), snapshot(5, 3), snapshot(8, 6)) == ""
    assert "10 devices got their first command in 3.00 s" in wrong(snapshot(0, 0), snapshot(10, 3))


CLAIM = {
    "campaign_id": 1, "device_id": "dev-1", "attempt": 1, "at": NOW, "status": "RUNNING", "wave": 0, "present_wave": 0,
    "being_placed": False, "revision": 1, "halted_since": None, "frozen_since": None,
}  # fmt: skip
LONG_AGO = NOW - timedelta(minutes=1)


def window(kind: str, hour: int, **more: str) -> dict[str, object]:
    return {"kind": kind, "cron": f"0 {hour} * * *", "duration": "1h", **more}


@pytest.mark.parametrize(
    ("changed", "schedule", "text"),
    [
        ({}, {}, ""),
        ({"status": "PAUSED"}, {}, "the campaign was PAUSED"),
        ({"being_placed": True}, {}, "being placed"),
        ({"wave": 1}, {}, "in wave 1, and the present one was 0"),
        ({"wave": 1, "attempt": 2}, {}, ""),
        ({"halted_since": LONG_AGO}, {}, "halted since"),
        ({"halted_since": NOW}, {}, ""),
        ({"frozen_since": LONG_AGO}, {}, "a freeze was in force"),
        ({"frozen_since": LONG_AGO}, {"ignore_freezes": True}, ""),
        ({}, {"start": "2027-01-11T09:00:00Z"}, "the schedule starts"),
        ({}, {"end": "2027-01-11T08:00:00Z"}, "the schedule ended"),
        ({}, {"windows": [window("allow", 8)]}, ""),
        ({}, {"windows": [window("allow", 8, time_zone="device")]}, "the windows were closed in Asia/Tokyo"),
        ({}, {"windows": [window("allow", 17, time_zone="device")]}, ""),
        ({}, {"windows": [window("allow", 8), window("deny", 17, time_zone="device")]}, "the windows were closed"),
        ({}, {"windows": [window("allow", 8, cutoff="40m")]}, "the windows were closed"),
    ],
)
def test_each_claim_at_a_closed_gate_is_found(changed: Mapping[str, object], schedule: Any, text: str) -> None:
    found = "\n".join(
        Claims(0.5).check([{**CLAIM, **changed}], campaign(device(1, 0), document={"schedule": schedule}))
    )
    assert (text in found) if text else not found


def test_a_window_is_open_from_its_start_to_before_its_end() -> None:
    windows = [{"kind": "allow", "start": "2027-01-11T08:30:00Z", "end": "2027-01-11T08:40:00Z", "cutoff": "1m"}]
    minutes = [
        minute for minute in range(-2, 12) if is_open({"windows": windows}, None, NOW + timedelta(minutes=minute))
    ]
    assert minutes == list(range(9))
