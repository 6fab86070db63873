"""The verdict: each rule, its level and its text, and the order of the rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rollwave.domain.campaign import CANCELLED_BY_OPERATOR, PAUSED_BY_OPERATOR, CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.overview.brakes import StoppedBy
from rollwave.domain.overview.facts import OverviewFacts
from rollwave.domain.overview.guardrails import GuardrailStanding
from rollwave.domain.overview.headline import (
    HALF_USED,
    QUARTER_USED,
    RULES,
    SILENT_SECONDS,
    Level,
    RuleName,
    headline,
)
from rollwave.domain.overview.how_far import HowFar
from rollwave.domain.overview.segments import SegmentStanding
from rollwave.domain.overview.waves import WaveStanding

S = CampaignStatus
NOW = datetime(2027, 3, 1, 14, 5, tzinfo=UTC)


def devices(**counts: int) -> HowFar:
    return HowFar({each: counts.get(each.value, 0) for each in ExecutionStatus})


def guardrail(**changed: Any) -> GuardrailStanding:
    before: dict[str, Any] = {
        "name": "failures",
        "action": "abort",
        "value": 0.01,
        "limit": None,
        "threshold": 0.1,
        "trips_after": 90,
        "tripped": False,
        "finished": 800,
        "failed": 8,
        "min_finished": 1,
    }
    return GuardrailStanding(**before | changed)


def segment(**changed: Any) -> SegmentStanding:
    before: dict[str, Any] = {
        "number": 2,
        "labels": {"revision": "B"},
        "waiting": 0,
        "in_flight": 0,
        "succeeded": 20,
        "failed": 8,
        "quarantined": False,
        "limit": 0.12,
    }
    return SegmentStanding(**before | changed)


GOOD = devices(SUCCESS=8)

CALM = OverviewFacts(
    S.RUNNING,
    devices(PENDING=148, DOWNLOADING=30, INSTALLING=14, SUCCESS=800, FAILED=8),
    version="2.4.1",
    wanted=1000,
    guardrails=[guardrail()],
    waves=[WaveStanding(0, "canary", 50, 50, "passed"), WaveStanding(1, "rest", 950, 802, "open")],
    wave=1,
    silent_for=3.0,
)
"""A campaign that runs well."""

TRIPPED = guardrail(
    tripped=True, trips_after=0, evidence={"failed": 7, "of": 57, "value": 7 / 57, "limit": None}, action="abort"
)
QUARANTINED = replace(TRIPPED, action="quarantine", name="revision", labels={"rev": "B"})
HALT = StoppedBy("halt", "halt", None, "devices of 2.4.1 do not boot")
FREEZE = StoppedBy("freeze", "year-end", NOW, "the shops are open")
WAITS = [WaveStanding(0, "canary", 50, 50, "awaiting_approval"), WaveStanding(1, "rest", 950, 0, "waiting")]
GATE_FAILED = [WaveStanding(0, "canary", 50, 50, "failed"), WaveStanding(1, "rest", 950, 0, "waiting")]

RULES_IN_ORDER: Sequence[tuple[str, Level, Mapping[str, Any], str]] = (
    (
        "a guardrail aborted it",
        Level.STOP,
        {"status": S.ABORTED, "guardrails": [TRIPPED]},
        (
            "Guardrail failures tripped: 7 of 57 failed (12.3 %, over 10 %); the campaign is aborted"
            "; by now 8 of 808 failed"
        ),
    ),
    (
        "a guardrail paused it",
        Level.STOP,
        {"status": S.PAUSED, "guardrails": [replace(TRIPPED, action="pause")], "reason": "guardrail failures: …"},
        (
            "Guardrail failures tripped: 7 of 57 failed (12.3 %, over 10 %); the campaign is paused"
            "; by now 8 of 808 failed"
        ),
    ),
    (
        "a gate failed",
        Level.STOP,
        {"status": S.PAUSED, "waves": GATE_FAILED, "wave": 0, "reason": "40 of 50 finished devices succeeded"},
        "The gate of wave canary failed: 40 of 50 finished devices succeeded; the campaign is paused",
    ),
    (
        "halted",
        Level.STOP,
        {"stopped_by": [FREEZE, HALT]},
        "All sending is halted: devices of 2.4.1 do not boot; 44 in progress carry on",
    ),
    (
        "a copy of the database",
        Level.STOP,
        {"in_own_database": False},
        "This database is a copy or was moved: nothing is sent until an operator says which",
    ),
    (
        "it cannot go on",
        Level.STOP,
        {"fault": "the view rollwave_devices cannot be read"},
        "The campaign cannot go on: the view rollwave_devices cannot be read",
    ),
    (
        "no listener",
        Level.STOP,
        {"heard": False},
        "No listener is subscribed: no report arrives and nothing is sent. Check the broker and the workers",
    ),
    (
        "paused by the engine",
        Level.STOP,
        {"status": S.PAUSED, "reason": "abort_threshold 7.0 is not within 0 to 1"},
        "Paused by the engine: abort_threshold 7.0 is not within 0 to 1",
    ),
    (
        "frozen",
        Level.WATCH,
        {"stopped_by": [FREEZE]},
        "Stopped by the freeze year-end until 2027-03-01 14:05 UTC: the shops are open; 44 in progress carry on",
    ),
    (
        "silent",
        Level.WATCH,
        {"silent_for": 720.0},
        "No report for 12 min: 44 devices are in progress",
    ),
    (
        "under quarantine",
        Level.WATCH,
        {"guardrails": [guardrail(), QUARANTINED]},
        "Guardrail revision, rev=B, tripped: 7 of 57 failed (12.3 %, over 10 %); under quarantine, the rest goes on",
    ),
    (
        "a segment over the threshold",
        Level.WATCH,
        {"segments": [segment()]},
        "Devices with revision=B: 8 of 28 failed, at least 12 % of all, over 10 %",
    ),
    (
        "a guardrail more than half used",
        Level.WATCH,
        {"guardrails": [guardrail(value=0.06, failed=48, trips_after=36)]},
        "6 % failed (48 of 800); stops itself above 10 %, after 36 more failures in a row",
    ),
    (
        "as many in progress as it takes to trip",
        Level.WATCH,
        {"guardrails": [guardrail(value=0.03, failed=3, finished=100, trips_after=8)]},
        "3 % failed (3 of 100); stops itself above 10 %, after 8 more failures in a row, and 44 are in progress",
    ),
    (
        "an approval",
        Level.WATCH,
        {"waves": WAITS, "wave": 0},
        "Wave canary waits for an approval",
    ),
    (
        "all is well",
        Level.OK,
        {},
        "Running; 808 of 1,000 devices finished, 8 failed",
    ),
)
"""What holds, the level, what is changed in a calm campaign, and the text. In the order of the rules."""


@pytest.mark.parametrize(("level", "changed", "text"), [each[1:] for each in RULES_IN_ORDER])
def test_a_rule_has_a_level_and_a_text(level: Level, changed: Mapping[str, Any], text: str) -> None:
    found = headline(replace(CALM, **changed))
    assert (found.level, found.text) == (level, text)


COMBINED = [
    (first, second)
    for place, first in enumerate(RULES_IN_ORDER)
    for second in RULES_IN_ORDER[place + 1 :]
    if not first[2].keys() & second[2].keys()
]


@pytest.mark.parametrize(("first", "second"), COMBINED, ids=lambda each: each[0])
def test_the_first_rule_that_holds_wins(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    both = replace(CALM, **{**second[2], **first[2]})
    assert headline(both).level == first[1]
    # A final campaign has few rules, and a paused one shows its reason: then the second one may not hold at all.
    assert headline(both).text.split(";")[0].startswith(first[3].split(";")[0].split(":")[0])


def test_no_rule_that_says_watch_comes_before_one_that_says_stop() -> None:
    levels = [each.level for each in RULES]
    assert levels == sorted(levels, key=[Level.STOP, Level.WATCH].index)


def test_every_rule_is_tested() -> None:
    found = [headline(replace(CALM, **each[2])).rule for each in RULES_IN_ORDER]
    assert list(dict.fromkeys(found)) == list(RuleName)


def test_the_page_about_the_verdict_has_a_row_for_each_rule_in_their_order() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/verdict.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert rows == [*((each.name.value, each.level.value) for each in RULES), ("none", "ok")]


class TestThatNothingIsWrong:
    """What must not raise an alarm, though it looks like one of the rules."""

    @pytest.mark.parametrize(
        "changed",
        [
            {"silent_for": SILENT_SECONDS - 1},
            {"silent_for": None},
            {"silent_for": 9000.0, "devices": devices(PENDING=100, SUCCESS=900)},  # nothing is in progress
            {"guardrails": [guardrail(value=0.0999 * HALF_USED, failed=40, trips_after=60)]},
            {"guardrails": [guardrail(value=0.0999 * QUARTER_USED, failed=20, trips_after=1)]},
            {"guardrails": [guardrail(value=0.0, failed=0, trips_after=1)]},  # the first devices of every campaign
            {"guardrails": [guardrail(value=0.03, failed=3, trips_after=45)]},  # more than there are in progress
            {"guardrails": []},
            {"segments": [segment(limit=0.09)]},
            {"segments": [segment()], "guardrails": []},  # there is no threshold
        ],
    )
    def test_while_it_runs(self, changed: Mapping[str, Any]) -> None:
        assert headline(replace(CALM, **changed)).level is Level.OK

    @pytest.mark.parametrize(
        "changed",
        [
            {"stopped_by": [HALT]},
            {"stopped_by": [FREEZE]},
            {"heard": False},
            {"silent_for": 9000.0},
            {"segments": [segment()]},
            {"guardrails": [guardrail(value=0.09, failed=72, trips_after=9)]},
            {"guardrails": [QUARANTINED]},
            {"waves": WAITS, "wave": 0},
            {"waves": GATE_FAILED, "wave": 0},
            {"in_own_database": False},
            {"fault": "the view cannot be read"},
        ],
    )
    def test_once_it_has_completed(self, changed: Mapping[str, Any]) -> None:
        found = headline(replace(CALM, status=S.COMPLETED, **changed))
        assert found.level is Level.OK
        assert found.text.startswith("Completed: ")

    def test_before_enough_devices_have_finished_only_failures_count(self) -> None:
        """One failure of two, of four, of eight …: a level that came and went with them would be no help."""
        for finished in (1, 2, 4, 8, 19):
            few = guardrail(
                value=1 / finished,
                failed=1,
                finished=finished,
                threshold=0.4,
                trips_after=20 - finished,
                min_finished=20,
            )
            assert headline(replace(CALM, guardrails=[few])).level is Level.OK

    def test_before_it_is_started(self) -> None:
        created = replace(CALM, status=S.CREATED, devices=devices(PENDING=1000), heard=False, stopped_by=[HALT])
        assert headline(created).text == "Not started; 1,000 devices wait"

    def test_of_a_pause_by_a_person(self) -> None:
        for reason in (PAUSED_BY_OPERATOR, PAUSED_BY_OPERATOR[:15], "", None):
            paused = headline(replace(CALM, status=S.PAUSED, reason=reason))
            assert (paused.level, paused.text) == (
                Level.OK,
                "Paused by an operator; 44 in progress may still finish",
            )

    def test_of_a_pause_without_a_listener_if_nothing_is_in_progress(self) -> None:
        paused = replace(CALM, status=S.PAUSED, reason=PAUSED_BY_OPERATOR, heard=False)
        assert headline(paused).level is Level.STOP
        assert headline(replace(paused, devices=devices(PENDING=9))).level is Level.OK


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (devices(SUCCESS=39, FAILED=12, SKIPPED=9), "the campaign is aborted; in the end 12 of 51 failed"),
        (devices(SUCCESS=50, FAILED=7, SKIPPED=9), "the campaign is aborted"),
    ],
)
def test_what_became_of_the_campaign_stands_beside_the_numbers_of_the_trip(of: HowFar, text: str) -> None:
    aborted = replace(CALM, status=S.ABORTED, guardrails=[TRIPPED], devices=of)
    assert headline(aborted).text.partition("; ")[2] == text


class TestCampaignsThatNeedNobody:
    """The sentences of the level ok."""

    @pytest.mark.parametrize(
        ("changed", "text"),
        [
            ({"targeted": 300}, "Running; 300 of 1,000 devices are targeted so far"),
            ({"status": S.CREATED, "targeted": 0}, "Not started; 0 of 1,000 devices are targeted so far"),
            ({"status": S.CREATED, "devices": devices(PENDING=1)}, "Not started; 1 device waits"),
            ({"devices": devices(PENDING=1000)}, "Running; 0 of 1,000 devices finished"),
            ({"devices": devices(SUCCESS=5, PENDING=5)}, "Running; 5 of 10 devices finished, none failed"),
            (
                {"waves": [WaveStanding(1, "early", 50, 50, "soaking", until=NOW)]},
                "Wave early soaks until 2027-03-01 14:05 UTC; 808 of 1,000 devices finished, 8 failed",
            ),
            (
                {"status": S.COMPLETED, "devices": devices(SUCCESS=990, FAILED=8, SKIPPED=2)},
                "Completed: 990 of 1,000 devices run 2.4.1, 8 failed, 2 skipped",
            ),
            (
                {"status": S.COMPLETED, "devices": devices(SUCCESS=1), "version": ""},
                "Completed: 1 of 1 device runs the firmware",
            ),
            (
                {"status": S.ABORTED, "reason": "battery drain", "devices": devices(SUCCESS=8, SKIPPED=2)},
                "Aborted: battery drain; 8 of 10 devices run 2.4.1, 2 skipped",
            ),
            (
                {
                    "status": S.ABORTED,
                    "reason": CANCELLED_BY_OPERATOR,
                    "cancelled": True,
                    "devices": devices(SUCCESS=8),
                },
                "Cancelled by an operator; 8 of 8 devices run 2.4.1",
            ),
            (
                {"status": S.ABORTED, "devices": devices(SUCCESS=8, INSTALLING=2)},
                "Aborted; 8 of 10 devices run 2.4.1; 2 in progress may still finish",
            ),
        ],
    )
    def test_say_what_they_do_or_how_they_ended(self, changed: Mapping[str, Any], text: str) -> None:
        found = headline(replace(CALM, **changed))
        assert (found.level, found.text) == (Level.OK, text)
