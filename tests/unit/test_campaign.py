"""The transition table of campaigns is the one in the contract."""

from __future__ import annotations

from rollwave.domain.campaign import FINAL, TRANSITIONS, Action, CampaignStatus, after

S, A = CampaignStatus, Action


def test_nothing_leaves_a_final_state() -> None:
    assert {to for (status, _), to in TRANSITIONS.items() if status is S.COMPLETED} == set()
    assert {to for (status, _), to in TRANSITIONS.items() if status is S.ABORTED} == {S.ABORTED}
    assert {S.COMPLETED, S.ABORTED} == FINAL


def test_repeating_an_action_changes_nothing() -> None:
    for action, state in ((A.START, S.RUNNING), (A.PAUSE, S.PAUSED), (A.ABORT, S.ABORTED)):
        assert after(state, action) is state


def test_a_campaign_that_was_never_started_cannot_pause_complete_or_trip() -> None:
    for action in (A.PAUSE, A.FINISH, A.TRIP, A.HOLD):
        assert after(S.CREATED, action) is None


def test_every_action_has_a_verb_for_error_messages() -> None:
    verbs = {action: action.verb for action in Action}
    assert verbs == {
        A.START: "start",
        A.PAUSE: "pause",
        A.ABORT: "abort",
        A.TRIP: "abort",
        A.HOLD: "pause",
        A.FINISH: "complete",
    }


def test_an_aborted_campaign_cannot_be_started() -> None:
    assert after(S.ABORTED, A.START) is None


def test_every_state_can_be_reached_and_leads_to_a_final_one() -> None:
    reached = {S.CREATED}
    while more := {to for (status, _), to in TRANSITIONS.items() if status in reached} - reached:
        reached |= more
    assert reached == set(S)
