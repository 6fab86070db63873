"""The questions before an action on a campaign say what will happen, word by word."""

from __future__ import annotations

from typing import Any

import pytest

from rollwave.console import questions


def overview(**changes: Any) -> dict[str, Any]:
    devices = {"PENDING": 436, "DOWNLOADING": 11, "INSTALLING": 12, "SUCCESS": 812, "FAILED": 13, "SKIPPED": 0}
    return {
        "campaign_id": 7,
        "name": "Spring release",
        "status": "RUNNING",
        "version": "2.4.1",
        "as_of": "2026-11-29T03:00:00Z",
        "devices": devices | changes.pop("devices", {}),
        "waves": [],
    } | changes


def test_abort() -> None:
    question = questions.abort(overview())
    assert question.text == 'Abort "Spring release"?'
    assert " ".join(question.facts) == (
        "436 devices not sent yet will be skipped. 23 in progress may still finish. "
        "812 keep 2.4.1; nothing is rolled back. This can't be undone; to stop for now, pause."
    )
    assert (question.harmless, question.pause, question.verb) == ("Keep running", True, "Abort, skip 436")


def test_cancel() -> None:
    question = questions.cancel(overview())
    assert question.text == 'Cancel "Spring release" and call devices back?'
    assert " ".join(question.facts) == (
        "436 not sent yet will be skipped. 23 in progress are told to stop; each either stops and counts as failed "
        "(CANCELLED) or carries on. 812 keep 2.4.1. This can't be undone."
    )
    assert (question.harmless, question.verb) == ("Keep running", "Cancel, tell 23")


def test_what_does_not_apply_is_not_said() -> None:
    nothing = {"PENDING": 0, "DOWNLOADING": 0, "INSTALLING": 0, "SUCCESS": 0}
    question = questions.abort(overview(status="PAUSED", devices=nothing))
    assert (question.facts, question.verb, question.pause) == (["This can't be undone."], "Abort", False)


def test_one_device_is_singular() -> None:
    one = {"PENDING": 1, "DOWNLOADING": 1, "INSTALLING": 0, "SUCCESS": 1}
    assert questions.cancel(overview(devices=one)).facts[1].startswith("1 in progress is told to stop; it either")
    assert questions.abort(overview(devices=one)).facts[:3] == [
        "1 device not sent yet will be skipped.",
        "1 in progress may still finish.",
        "1 keeps 2.4.1; nothing is rolled back.",
    ]


@pytest.mark.parametrize(("pending", "asked"), [(1000, ""), (1001, "Spring release")])
def test_the_name_is_typed_only_if_more_than_a_thousand_devices_are_affected(pending: int, asked: str) -> None:
    assert questions.abort(overview(devices={"PENDING": pending})).name == asked
    assert questions.cancel(overview(devices={"PENDING": pending - 23})).name == asked


def test_a_campaign_without_a_name_is_called_by_its_number() -> None:
    question = questions.abort(overview(name=None, devices={"PENDING": 2000}))
    assert (question.text, question.name) == ("Abort campaign 7?", "campaign 7")
    assert questions.is_typed(question, "  Campaign 7 ")
    assert not questions.is_typed(question, "7")


def test_nothing_need_be_typed_where_nothing_is_asked_for() -> None:
    assert questions.is_typed(questions.abort(overview()), "")


def _wave(number: int, name: str, size: int, **more: Any) -> dict[str, Any]:
    return {"number": number, "name": name, "size": size, "waits_for": None, "until": None} | more


def test_promote_says_what_is_skipped() -> None:
    soaking = _wave(1, "early", 940, waits_for="soak", until="2026-11-29T04:48:00Z")
    question = questions.promote(overview(waves=[soaking, _wave(2, "rest", 18940)]), "early")
    assert question is not None
    assert (question.text, list(question.facts)) == ("Open rest now?", ["18,940 devices; skips 1 h 48 min of soak."])
    assert (question.verb, question.hidden) == ("Open rest", {"wave": "early"})


def test_the_last_wave_opens_no_other_one() -> None:
    assert questions.promote(overview(waves=[_wave(0, "rest", 10)]), "rest") is None


def test_retry() -> None:
    assert questions.retry(overview(), code="E_BOOT", devices=13).text == "Retry 13 failed devices (E_BOOT)?"
    assert questions.retry(overview(), code=None, devices=1).verb == "Retry 1"


def test_answers_state_what_was_done() -> None:
    assert questions.paused(overview()) == "Paused. 23 devices in progress may still finish."
    after = overview(devices={"PENDING": 0, "SKIPPED": 436})
    said = questions.stopped(overview(), after, cancelled=False, asked=436)
    assert said == "Aborted. 436 devices skipped; 23 in progress may still finish."
    later = overview(devices={"PENDING": 18000, "SKIPPED": 1000})
    assert questions.stopped(overview(), later, cancelled=True) == (
        "Cancelled. 1,000 devices skipped; 18,000 more are being skipped; 23 in progress are told to stop."
    )


def test_devices_that_were_sent_to_since_the_question_are_named() -> None:
    asked = overview(devices={"PENDING": 171, "SKIPPED": 40, "DOWNLOADING": 0, "INSTALLING": 0})
    assert questions.abort(asked).hidden == {"asked": "171"}
    after = overview(devices={"PENDING": 0, "SKIPPED": 208, "DOWNLOADING": 0, "INSTALLING": 0})
    said = questions.stopped(asked, after, cancelled=False, asked=171)
    assert said == "Aborted. 168 devices skipped; 3 had been sent to meanwhile."
