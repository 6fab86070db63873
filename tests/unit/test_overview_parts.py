"""The parts of the overview: guardrails, waves, segments, devices, brakes, actions and words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.overview import texts
from rollwave.domain.overview import waves as waves_of
from rollwave.domain.overview.actions import actions
from rollwave.domain.overview.brakes import StoppedBy
from rollwave.domain.overview.from_versions import from_versions, most_common
from rollwave.domain.overview.guardrails import GuardrailStanding, most_used_first, with_reason
from rollwave.domain.overview.how_far import HowFar
from rollwave.domain.overview.segments import SegmentStanding, worst_first
from rollwave.domain.overview.waves import WaveStanding
from rollwave.domain.policy.words import WaveState

S = CampaignStatus
WAVES = [WaveStanding(0, "canary", 50, 50, "passed"), WaveStanding(1, "rest", 950, 0, "open")]


def entry(**changed: Any) -> dict[str, Any]:
    """An element of ``guardrails`` of the API."""
    return {
        "name": "failures",
        "scope": "campaign",
        "method": "ratio",
        "action": "abort",
        "value": 0.02,
        "limit": None,
        "threshold": 0.1,
        "trips_after": 31,
        "finished": 100,
        "failed": 2,
        "min_finished": 1,
        "tripped": False,
        "tripped_at": None,
        "evidence": None,
        "wave": None,
        "labels": None,
        **changed,
    }


class TestGuardrails:
    @pytest.mark.parametrize(
        ("changed", "used"),
        [
            ({}, 0.2),
            ({"value": 0.5}, 1.0),
            ({"limit": 0.05}, 0.5),
            ({"limit": 0.0}, 0.0),
            ({"tripped": True, "value": 0.0}, 1.0),
            ({"threshold": 0.0, "value": 0.0}, 0.0),
            ({"threshold": 0.0, "value": 0.01}, 1.0),
        ],
    )
    def test_used_is_the_part_of_the_threshold(self, changed: dict[str, Any], used: float) -> None:
        assert GuardrailStanding.read(entry(**changed)).used == pytest.approx(used)

    def test_the_most_used_comes_first_and_a_tripped_one_before_all(self) -> None:
        values = {"a": 0.01, "b": 0.09, "c": 0.0}
        read = [GuardrailStanding.read(entry(name=name, value=value)) for name, value in values.items()]
        read.append(GuardrailStanding.read(entry(name="d", tripped=True)))
        assert [each.name for each in most_used_first(read)] == ["d", "b", "a", "c"]

    def test_a_wave_is_named_and_labels_are_words(self) -> None:
        assert GuardrailStanding.read(entry(wave=1), WAVES).group == "wave rest"
        assert GuardrailStanding.read(entry(wave=7), WAVES).group == "wave number 8"
        assert GuardrailStanding.read(entry(labels={"revision": "B", "site": None})).group == "revision=B, no site"
        assert GuardrailStanding.read(entry()).group == ""

    def test_the_document_has_what_pages_draw(self) -> None:
        assert GuardrailStanding.read(entry()).to_json() == {
            "name": "failures",
            "scope": "campaign",
            "method": "ratio",
            "action": "abort",
            "group": "",
            "value": 0.02,
            "limit": None,
            "threshold": 0.1,
            "trips_after": 31,
            "trips": "after 31 more failures in a row",
            "tripped": False,
            "used": pytest.approx(0.2),
            "text": "failures: 2 % failed (2 of 100); stops itself above 10 %, after 31 more failures in a row",
            "wave": None,
            "labels": None,
        }

    @pytest.mark.parametrize(
        ("changed", "text"),
        [
            ({"trips_after": 1}, "2 % failed (2 of 100); stops itself above 10 %, after 1 more failure"),
            ({"trips_after": None, "threshold": 1.0}, "2 % failed (2 of 100); stops itself above 100 %"),
            (
                {"action": "quarantine", "finished": 4, "failed": 1, "min_finished": 20, "trips_after": 16},
                "25 % failed (1 of 4); goes under quarantine above 10 %, once 20 have finished",
            ),
            (
                {"limit": 0.03, "finished": 4, "min_finished": 9, "trips_after": 2},
                (
                    "50 % failed (2 of 4), at least 3 %; stops itself above 10 %, after 2 more failures,"
                    " once 9 have finished"
                ),
            ),
            (
                {"limit": 0.11, "finished": 4, "min_finished": 9, "trips_after": 0},
                "50 % failed (2 of 4), at least 11 %; stops itself above 10 %, once 9 have finished",
            ),
        ],
    )
    def test_it_says_when_it_trips(self, changed: dict[str, Any], text: str) -> None:
        assert GuardrailStanding.read(entry(**changed)).standing_text == text

    @pytest.mark.parametrize("finished", [1, 2, 8, 19])
    @pytest.mark.parametrize(("failed", "left"), [(0, 9), (1, 8), (5, 4), (9, 0), (12, 0)])
    def test_a_ratio_without_enough_devices_is_used_by_failures_alone(
        self, finished: int, failed: int, left: int
    ) -> None:
        early = {"value": min(1.0, failed / finished), "finished": finished, "failed": failed, "min_finished": 20}
        found = GuardrailStanding.read(entry(threshold=0.4, trips_after=20 - finished, **early))
        assert found.used == pytest.approx(min(1.0, failed / 9)), "nine failures of twenty are over 40 %"
        assert found.failures_left == left

    def test_a_threshold_of_a_whole_number_of_devices_is_not_exceeded_by_them(self) -> None:
        early = {"finished": 1, "failed": 0, "min_finished": 100, "trips_after": 99}
        assert GuardrailStanding.read(entry(threshold=0.29, **early)).failures_left == 30

    @pytest.mark.parametrize(
        ("changed", "text"),
        [
            ({"evidence": {"failed": 7, "of": 57, "value": 7 / 57}}, "7 of 57 failed (12.3 %, over 10 %)"),
            (
                {"evidence": {"failed": 7, "of": 57, "value": 7 / 57, "limit": 0.104}},
                "7 of 57 failed (12.3 %, at least 10.4 % of all, over 10 %)",
            ),
            ({"evidence": {"failed": "many"}, "value": 0.12, "failed": 12}, "12 of 100 failed (12 %, over 10 %)"),
            ({"value": 0.12, "failed": 12}, "12 of 100 failed (12 %, over 10 %)"),  # flat columns have no evidence
        ],
    )
    def test_a_trip_is_told_by_its_evidence(self, changed: dict[str, Any], text: str) -> None:
        assert GuardrailStanding.read(entry(tripped=True, **changed)).trip_text == text

    def test_a_limit_over_the_threshold_counts_until_it_trips(self) -> None:
        assert GuardrailStanding.read(entry(limit=0.11)).over
        assert not GuardrailStanding.read(entry(limit=0.11, tripped=True)).over
        assert not GuardrailStanding.read(entry(value=0.5)).over

    def test_in_a_campaign_that_has_ended_it_says_how_it_was(self) -> None:
        calm = GuardrailStanding.read(entry(value=0.083, failed=5, finished=60)).to_json(ended=True)
        assert (calm["text"], calm["trips_after"], calm["trips"]) == (
            "failures: 8.33 % failed (5 of 60) at the end, limit 10 %",
            None,
            "",
        )
        evidence = {"failed": 7, "of": 57, "value": 7 / 57}
        assert GuardrailStanding.read(entry(tripped=True, evidence=evidence)).to_json(ended=True)["text"] == (
            "failures: tripped, 7 of 57 failed (12.3 %, over 10 %)"
        )

    def test_flat_columns_have_the_numbers_of_a_trip_in_the_reason(self) -> None:
        reason = "3 of 21 finished devices failed (14.3%, over 10.0%)"
        found = with_reason(GuardrailStanding.read(entry(value=0.08)), reason)
        assert (found.tripped, found.trip_text) == (True, "3 of 21 failed (14.3 %, over 10 %)")
        for other in (None, "", "aborted by an operator", f"{reason}, says Eve"):
            assert not with_reason(GuardrailStanding.read(entry()), other).tripped


class TestWaves:
    @pytest.mark.parametrize(
        ("state", "sent", "text"),
        [
            ("open", 12, "rest (2 of 2): closed: 12 sent, 168 skipped"),
            ("waiting", 0, "rest (2 of 2): closed: 0 sent, 180 skipped"),
            ("awaiting_approval", 180, "rest (2 of 2): closed: 180 sent"),
            ("passed", 180, "rest (2 of 2): passed"),
            ("failed", 180, "rest (2 of 2): its gate has failed"),
        ],
    )
    def test_no_wave_is_open_in_a_campaign_that_has_ended(self, state: str, sent: int, text: str) -> None:
        shown = WaveStanding(1, "rest", 180, sent, state).to_json(2, ended=True)
        assert (shown["text"], shown["waits_for"], shown["needs_role"]) == (text, None, None)

    @pytest.mark.parametrize(
        ("state", "approval", "waits_for", "role"),
        [
            (WaveState.WAITING, True, None, None),
            (WaveState.OPEN, True, None, None),
            (WaveState.PASSED, True, None, None),
            (WaveState.SOAKING, False, "soak", "operator"),
            (WaveState.SOAKING, True, "soak", "approver"),
            (WaveState.AWAITING_APPROVAL, True, "approval", "approver"),
            (WaveState.FAILED, False, "gate", "operator"),
            (WaveState.FAILED, True, "gate", "approver"),
        ],
    )
    def test_a_wave_says_what_it_waits_for_and_who_may_promote_it(
        self, state: WaveState, approval: bool, waits_for: str | None, role: str | None
    ) -> None:
        wave = WaveStanding(0, "canary", 50, 50, state.value, approval=approval)
        assert (wave.waits_for, wave.needs_role) == (waits_for, role)

    def test_times_are_read_from_text_and_from_times(self) -> None:
        at = datetime(2027, 3, 1, tzinfo=UTC)
        [one, other] = waves_of.read([{"since": at}, {"since": at.isoformat(), "name": None}])
        assert one.since == other.since == at
        assert (other.number, other.name) == (1, "wave 2")

    def test_the_document_has_a_text(self) -> None:
        shown = WAVES[0].to_json(2)
        assert (shown["text"], shown["waits_for"]) == ("canary (1 of 2): passed", None)


class TestSegments:
    def test_the_worst_come_first_and_those_under_quarantine_before_all(self) -> None:
        numbers = {1: (100, 1), 2: (100, 30), 3: (3, 3), 4: (50, 0)}
        segments = [
            SegmentStanding(number, {"revision": str(number)}, 0, 0, sent - failed, failed, number == 4)
            for number, (sent, failed) in numbers.items()
        ]
        assert [each.number for each in worst_first(segments, of=4)] == [4, 2, 3, 1], (
            "three failures of three prove less than thirty of a hundred"
        )

    def test_devices_in_flight_count_as_not_failed(self) -> None:
        few = SegmentStanding(1, {"revision": "B"}, 0, 0, 10, 10, quarantined=False)
        many = SegmentStanding(1, {"revision": "B"}, 0, 1000, 10, 10, quarantined=False)
        [alone], [beside] = worst_first([few], of=1), worst_first([many], of=1)
        assert alone.limit > 10 * beside.limit > 0

    def test_a_segment_is_judged_more_strictly_among_many(self) -> None:
        one = SegmentStanding(1, {}, 0, 0, 10, 10, quarantined=False)
        assert worst_first([one], of=1)[0].limit > worst_first([one], of=1000)[0].limit > 0

    def test_without_failures_nothing_is_proven(self) -> None:
        [found] = worst_first([SegmentStanding(1, {"site": "north"}, 5, 5, 100, 0, quarantined=False)], of=1)
        assert (found.limit, found.text) == (0.0, "site=north: 0 of 100 failed")


class TestDevices:
    def test_unknown_and_negative_counters_count_as_none(self) -> None:
        found = HowFar.read({"PENDING": 3, "SUCCESS": -2})
        assert found.by_state == {each: 3 if each is ExecutionStatus.PENDING else 0 for each in ExecutionStatus}
        assert (found.finished_share, found.failure_rate) == (0.0, 0.0)

    def test_shares(self) -> None:
        found = HowFar.read({"PENDING": 10, "SUCCESS": 60, "FAILED": 20, "SKIPPED": 10})
        assert (found.total, found.finished, found.finished_share, found.failure_rate) == (100, 80, 0.8, 0.25)
        empty = HowFar.read({})
        assert (empty.finished_share, empty.failure_rate) == (0.0, 0.0)


def test_a_brake_says_which_one_it_is_until_when_and_why() -> None:
    freeze = {"kind": "freeze", "name": "year-end", "until": "2027-12-31T23:00:00+00:00", "reason": "shops"}
    assert StoppedBy.read(freeze).text == "freeze year-end until 2027-12-31 23:00 UTC: shops"
    assert StoppedBy.read({"kind": "halt", "name": "halt", "until": None, "reason": None}).text == "halt"


ACTIONS = ("start", "pause", "resume", "abort", "cancel", "retry")


@pytest.mark.parametrize(
    ("status", "cancelled", "expected"),
    [
        (S.CREATED, False, (True, False, False, True, True, 0)),
        (S.RUNNING, False, (False, True, False, True, True, 4)),
        (S.PAUSED, False, (False, False, True, True, True, 4)),
        (S.COMPLETED, False, (False, False, False, False, False, 0)),
        (S.ABORTED, False, (False, False, False, False, True, 0)),
        (S.ABORTED, True, (False, False, False, False, False, 0)),
    ],
)
def test_actions_are_those_that_change_something(status: S, cancelled: bool, expected: tuple[Any, ...]) -> None:
    devices = HowFar.read({"DOWNLOADING": 2, "FAILED": 4})
    assert actions(status, devices, cancelled=cancelled) == dict(zip(ACTIONS, expected, strict=True))


def test_an_aborted_campaign_without_devices_in_progress_cannot_be_cancelled() -> None:
    assert not actions(S.ABORTED, HowFar.read({"SUCCESS": 3}), cancelled=False)["cancel"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (720, "12 min"), (7200, "2 h"), (7500, "2 h 5 min"), (180_000, "2 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert texts.duration(seconds) == text


def test_numbers_and_shares() -> None:
    assert (texts.many(1, "device"), texts.many(1200, "device")) == ("1 device", "1,200 devices")
    assert (texts.percent(0.1228), texts.percent(0), texts.percent(1)) == ("12.3 %", "0 %", "100 %")


def test_versions_are_counted_in_a_sample_and_estimated_for_all_devices() -> None:
    sample = ["2.3.0"] * 6 + ["2.2.0"] * 2 + ["1.0", "0.9", None, ""]
    counted = most_common(sample)
    assert counted == [("2.3.0", 6), ("2.2.0", 2), ("0.9", 1)]
    shown = from_versions({"devices": len(sample), "versions": counted}, 120)
    assert [(each["version"], each["devices"]) for each in shown] == [("2.3.0", 60), ("2.2.0", 20), ("0.9", 10)]


@pytest.mark.parametrize("stored", [None, {}, {"devices": 0, "versions": []}, {"devices": 5}, {"devices": "x"}])
def test_versions_that_are_unknown_or_unreadable_are_none(stored: Any) -> None:
    assert from_versions(stored, 120) == []
