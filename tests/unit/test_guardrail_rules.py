"""Guardrails of a document: which failures count, when they trip, and how far they are from it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.execution import Place
from rollwave.domain.policy import guardrail
from rollwave.domain.policy.document.model import GuardrailRule, PolicyDocument
from rollwave.domain.policy.guardrail import Failure, Numbers, Trial
from rollwave.domain.policy.sequential import Prefix
from rollwave.domain.policy.words import group_text
from rollwave.domain.retry import Reason


def rule(**keys: object) -> GuardrailRule:
    return GuardrailRule.model_validate({"name": "failures", "threshold": "10%", **keys})


REPORTED = Failure(Reason.REPORTED, "E_BOOT")


def trial(failure: Failure | None, *before: Failure) -> Trial:
    return Trial(Place(1, 0, 1), failure, before)


def test_a_document_without_guardrails_has_the_contracts() -> None:
    [only] = guardrail.rules_of(PolicyDocument())
    assert only == rule()
    assert guardrail.min_finished(only) == 1
    assert only.action == "abort"
    assert guardrail.rules_of(PolicyDocument.model_validate({"guardrails": []})) == ()


@pytest.mark.parametrize(
    ("keys", "failure", "counted"),
    [
        ({}, REPORTED, True),
        ({}, Failure(Reason.OVERDUE), True),
        ({"count": ["no_answer"]}, REPORTED, False),
        ({"count": ["reported"]}, REPORTED, True),
        ({"codes": ["E_BOOT"]}, REPORTED, True),
        ({"codes": ["E_BOOT"]}, Failure(Reason.REPORTED, "E_DISK"), False),
        ({"codes": ["E_BOOT"]}, Failure(Reason.REPORTED), False),
        ({"codes": ["E_BOOT"], "count": ["rejected"]}, REPORTED, False),
    ],
)
def test_classes_and_codes_decide_which_failures_count(
    keys: dict[str, object], failure: Failure, counted: bool
) -> None:
    assert guardrail.counts(rule(**keys), failure) is counted
    assert guardrail.fails_anew(rule(**keys), trial(failure)) is counted


def test_failures_before_a_retry_are_stored_as_text() -> None:
    failures = [REPORTED, Failure(Reason.NO_ANSWER)]
    assert guardrail.read_failures(["reported:E_BOOT", "no_answer:", "lost:E_BOOT", ""]) == failures


def test_a_retried_device_is_one_trial() -> None:
    of_silence = Failure(Reason.NO_ANSWER)
    assert guardrail.is_new(trial(REPORTED))
    assert not guardrail.is_new(trial(None, REPORTED))
    assert not guardrail.fails_anew(rule(), trial(None, REPORTED)), "it stays a failure, and is none anew"
    assert not guardrail.fails_anew(rule(), trial(of_silence, REPORTED)), "it is counted already"
    only_reported = rule(count=["reported"])
    assert guardrail.fails_anew(only_reported, trial(REPORTED, of_silence)), "in the class of its last attempt"
    assert not guardrail.fails_anew(only_reported, trial(of_silence, REPORTED))
    assert not guardrail.fails_anew(only_reported, trial(REPORTED, of_silence, REPORTED, of_silence))


@pytest.mark.parametrize(
    ("keys", "finished", "failed", "trips"),
    [
        ({}, 0, 0, False),
        ({}, 1, 1, True),
        ({}, 10, 1, False),  # exactly at the threshold
        ({}, 9, 1, True),
        ({"min_finished": 20}, 19, 19, False),
        ({"min_finished": 20}, 20, 3, True),
        ({"threshold": "0%"}, 1_000_000, 1, True),
        ({"threshold": "100%"}, 10, 10, False),
        ({"threshold": "29%"}, 100, 29, False),
        ({"threshold": "0.1%"}, 1000, 1, False),
    ],
)
def test_a_ratio_trips_over_its_threshold(keys: dict[str, object], finished: int, failed: int, trips: bool) -> None:
    found = guardrail.judge(rule(**keys), Numbers(finished, failed))
    assert (found is not None) is trips
    if found:
        assert (found.failed, found.of, found.limit) == (failed, finished, None)


def test_at_a_gate_a_ratio_needs_no_minimum_and_a_sequential_test_keeps_it() -> None:
    assert guardrail.judge(rule(min_finished=20), Numbers(2, 1), at_gate=True)
    three = Numbers(4, 4, prefixes=[Prefix(4, 4)])
    sequential = rule(method="sequential", threshold="5%")
    assert guardrail.judge(sequential, three, at_gate=True) is None
    assert guardrail.judge(sequential, Numbers(5, 4, prefixes=[Prefix(5, 4)]), at_gate=True)


def test_a_sequential_trip_has_its_evidence() -> None:
    found = guardrail.judge(
        rule(method="sequential", threshold="5%"), Numbers(30, 10, prefixes=[Prefix(25, 9), Prefix(60, 10, 30)])
    )
    assert found is not None
    assert (found.failed, found.of, found.value) == (9, 25, 9 / 25)
    assert found.limit is not None
    assert 0.05 < found.limit < found.value
    assert found.alpha == 0.01
    sure = f"with 99% confidence, at least {found.limit:.1%} of all would, which is over 5.0%"
    assert found.text == f"guardrail failures: 9 of the first 25 devices failed (36.0%); {sure}"


def test_segments_share_alpha() -> None:
    of_segment = rule(method="sequential", scope="segment", per=["hardware_revision"], threshold="5%")
    one = Numbers(25, 8, groups=1, prefixes=[Prefix(25, 8)])
    assert guardrail.judge(of_segment, one)
    assert guardrail.alpha(of_segment, 50) == pytest.approx(0.0002)
    assert guardrail.judge(of_segment, Numbers(25, 8, groups=5000, prefixes=[Prefix(25, 8)])) is None
    assert guardrail.alpha(rule(method="sequential", alpha=0.05), 50) == 0.05, "of the campaign"


@given(st.sampled_from(["0%", "5%", "10%", "33.3%", "99%"]), st.integers(1, 30), st.integers(0, 200), st.data())
def test_further_failures_trip_a_ratio_exactly_after_the_number_shown(
    threshold: str, minimum: int, finished: int, data: st.DataObject
) -> None:
    failed = data.draw(st.integers(0, finished))
    of = rule(threshold=threshold, min_finished=minimum)
    further = guardrail.standing(of, Numbers(finished, failed)).trips_after
    assert further is not None
    assert guardrail.judge(of, Numbers(finished + further, failed + further))
    assert not further or guardrail.judge(of, Numbers(finished + further - 1, failed + further - 1)) is None


def test_no_number_of_failures_is_over_all_of_them() -> None:
    assert guardrail.standing(rule(threshold="100%"), Numbers(10, 10)).trips_after is None


def test_a_changed_key_begins_the_test_anew() -> None:
    def document(*rules: dict[str, object]) -> PolicyDocument:
        return PolicyDocument.model_validate({"guardrails": list(rules)})

    old = document({"name": "a", "threshold": "5%"}, {"name": "b", "threshold": "5%"})
    new = document(
        {"name": "b", "threshold": "6%"}, {"name": "a", "threshold": "5.0%"}, {"name": "c", "threshold": "1%"}
    )
    assert guardrail.changed_rules(old, new) == ["b", "c"]
    assert guardrail.changed_rules(None, PolicyDocument()) == ["failures"]
    assert guardrail.changed_rules(PolicyDocument(), document({"name": "failures", "threshold": "10%"})) == []


def test_a_trip_names_the_gate_at_which_it_was_judged_and_its_wave() -> None:
    trip = guardrail.judge(rule(min_finished=20), Numbers(3, 1), at_gate=True)
    assert trip is not None
    assert replace(trip, gate="canary").text == (
        "guardrail failures: at the gate of wave canary, 1 of 3 finished devices failed (33.3%, over 10.0%)"
    )
    assert replace(trip, wave=0, wave_name="canary").text == (
        "guardrail failures: 1 of 3 finished devices of wave canary failed (33.3%, over 10.0%)"
    )


def test_groups_have_names() -> None:
    assert group_text(None) == ""
    assert group_text({"site": "north", "hardware_revision": None}) == "no hardware_revision, site=north"
    assert Fraction(1, 10) == rule().threshold.fraction
