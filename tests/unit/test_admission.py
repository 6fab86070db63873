"""How many devices may be sent to now, why the others wait, and that a claim and *explain* agree (G25)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollwave.domain.brakes import Brake, BrakeKind
from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import IN_PROGRESS, TERMINAL, ExecutionStatus
from rollwave.domain.policy.admission import admit, explain, may_go_at
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.facts import DeviceFacts, Facts, Remaining
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.gates import Pace, own, tokens_of
from rollwave.domain.policy.rules import Policy, Wave
from rollwave.domain.policy.waiting import DueAgain, Waiting, count_waiting
from rollwave.domain.policy.words import GateName
from rollwave.domain.retry import RetryPolicy

NOW = datetime(2027, 1, 11, 8, tzinfo=UTC)
POLICY = Policy(Guardrail(0.1), 10, None, 60.0, 60.0, 600.0, RetryPolicy())
HALT = Brake(BrakeKind.HALT, "halt", NOW - timedelta(hours=1), None, "key-1", "bricked devices")
FREEZE = Brake(BrakeKind.FREEZE, "launch", NOW, NOW + timedelta(minutes=10), "key-1")


def under(**schedule: object) -> Policy:
    """A policy whose document has only this schedule."""
    return replace(POLICY, document=PolicyDocument.model_validate({"schedule": schedule}))


IGNORES = under(ignore_freezes=True)
SCHEDULED = under(start=NOW.isoformat(), end=(NOW + timedelta(days=1)).isoformat())
RUNS = Facts(now=NOW, status=CampaignStatus.RUNNING, tick=10.0, wave=Wave(0, None))


@pytest.mark.parametrize(
    ("policy", "facts", "gate", "look_again_in"),
    [
        (POLICY, replace(RUNS, status=CampaignStatus.PAUSED), GateName.STATUS, inf),
        (POLICY, replace(RUNS, unreadable="rollout_rate 0 is below 1"), GateName.STATUS, inf),
        (POLICY, replace(RUNS, in_own_database=False), GateName.STATUS, None),
        (POLICY, replace(RUNS, targeted=3), GateName.TARGETING, inf),
        (POLICY, replace(RUNS, counted=False), GateName.TARGETING, None),
        (POLICY, replace(RUNS, heard=False), GateName.LISTENER, None),
        (POLICY, replace(RUNS, brakes=(HALT,)), GateName.HALTED, inf),
        (POLICY, replace(RUNS, brakes=(FREEZE,)), GateName.FREEZE, 600.0),
        (IGNORES, replace(RUNS, brakes=(HALT, FREEZE)), GateName.HALTED, inf),
        (SCHEDULED, replace(RUNS, now=NOW - timedelta(minutes=1)), GateName.SCHEDULE, 60.0),
        (SCHEDULED, replace(RUNS, now=NOW + timedelta(days=1)), GateName.SCHEDULE, inf),
        (POLICY, replace(RUNS, interval_age=4.0, interval_used=10), GateName.PACE, 6.0),
    ],
)
def test_a_closed_gate_permits_no_device(
    policy: Policy, facts: Facts, gate: GateName, look_again_in: float | None
) -> None:
    admission = admit(policy, facts)
    assert (admission.tokens, admission.fresh, admission.look_again_in) == (0, 0, look_again_in)
    assert [each.gate for each in admission.closed] == [gate]


@pytest.mark.parametrize(
    ("policy", "facts", "gate"),
    [
        (POLICY, replace(RUNS, wave=Wave(0, 5), sent=5), GateName.WAVE),
        (POLICY, replace(RUNS, wave=Wave(0, 5), sent=6), GateName.WAVE),
        (replace(POLICY, max_in_flight=5), replace(RUNS, in_flight=5), GateName.IN_FLIGHT),
    ],
)
def test_the_wave_and_the_cap_apply_to_first_commands_only(policy: Policy, facts: Facts, gate: GateName) -> None:
    admission = admit(policy, facts)
    assert (admission.tokens, admission.fresh, admission.look_again_in) == (10, 0, None)
    assert [each.gate for each in admission.closed] == [gate]


def test_the_smallest_room_limits_first_commands() -> None:
    assert admit(replace(POLICY, max_in_flight=5), replace(RUNS, in_flight=4)).fresh == 1
    assert admit(POLICY, replace(RUNS, wave=Wave(0, 5), sent=3)).fresh == 2
    assert admit(POLICY, RUNS).fresh == 10


@pytest.mark.parametrize(
    ("sent", "waiting", "unfinished", "finished"),
    [
        (5, True, False, True),
        (5, True, True, False),
        (4, True, False, False),
        (4, False, False, True),  # The campaign has fewer devices than the wave allows.
        (0, True, False, False),
    ],
)
def test_a_wave_is_finished_once_it_is_full_and_its_devices_have_ended(
    sent: int, waiting: bool, unfinished: bool, finished: bool
) -> None:
    facts = replace(RUNS, wave=Wave(0, 5), sent=sent, remaining=Remaining(waiting, unfinished))
    assert admit(POLICY, facts).wave_finished is finished


def test_a_wave_is_not_finished_without_facts_about_its_devices() -> None:
    assert not admit(POLICY, RUNS).wave_finished


NEW = DeviceFacts(ExecutionStatus.PENDING)
CLAIMED = DeviceFacts(ExecutionStatus.PENDING, attempt=1, due_in=30.0)


@pytest.mark.parametrize(
    ("device", "gate", "opens_in"),
    [
        (CLAIMED, GateName.LEASE, 30.0),
        (replace(CLAIMED, refused_for=Refusal.REJECTED), GateName.REFUSED, 30.0),
        (
            DeviceFacts(ExecutionStatus.DOWNLOADING, attempt=1, sent_attempt=1, failed_attempt=1, due_in=30.0),
            GateName.BACKOFF,
            30.0,
        ),
        (DeviceFacts(ExecutionStatus.DOWNLOADING, attempt=1, sent_attempt=1, due_in=30.0), GateName.STATUS, None),
        (DeviceFacts(ExecutionStatus.SUCCESS, attempt=1, sent_attempt=1), GateName.STATUS, None),
        (replace(NEW, addressable=False), GateName.STATUS, None),
    ],
)
def test_a_device_may_wait_for_its_own_reason(device: DeviceFacts, gate: GateName, opens_in: float | None) -> None:
    admission = admit(POLICY, RUNS)
    checks = explain(admission, RUNS, device)
    assert [each.gate for each in checks if not each.open] == [gate]
    assert may_go_at(checks, NOW) == (None if opens_in is None else NOW + timedelta(seconds=opens_in))


def test_a_device_that_was_set_back_is_not_said_to_have_failed() -> None:
    set_back = DeviceFacts(ExecutionStatus.PENDING, attempt=2, sent_attempt=2, failed_attempt=1, due_in=30.0)
    verdict = own(RUNS, set_back)
    assert verdict is not None
    assert (verdict.gate, verdict.open) == (GateName.BACKOFF, False)
    assert verdict.text == "attempt 2 was set back to PENDING, and the next one follows after a delay"


def test_a_device_that_may_go_has_every_gate_open() -> None:
    checks = explain(admit(POLICY, RUNS), RUNS, NEW)
    assert [each.gate for each in checks] == [
        GateName.STATUS, GateName.TARGETING, GateName.LISTENER, GateName.HALTED, GateName.FREEZE,
        GateName.WAVE, GateName.IN_FLIGHT, GateName.PACE,
    ]  # fmt: skip
    assert may_go_at(checks, NOW) == NOW


def test_the_eleventh_device_waits_for_the_pace_when_ten_may_go() -> None:
    checks = explain(admit(POLICY, RUNS), RUNS, replace(NEW, ahead=10, ahead_fresh=10))
    assert [each.gate for each in checks if not each.open] == [GateName.PACE]


@pytest.mark.parametrize(
    ("ahead", "age", "used", "opens_in"),
    [
        (0, 4.0, 10, 6.0),  # It is first in the next interval,
        (9, 4.0, 10, 6.0),  # or last in it.
        (10, 4.0, 10, 16.0),
        (499, 4.0, 10, 496.0),
        (499, 4.0, 3, 496.0),  # Seven go now.
        (499, None, 0, 490.0),
        (5, 4.0, 17, 6.0),  # The rate was lowered within the interval.
    ],
)
def test_a_device_behind_others_may_go_after_the_intervals_that_they_need(
    ahead: int, age: float | None, used: int, opens_in: float
) -> None:
    facts = replace(RUNS, interval_age=age, interval_used=used)
    checks = explain(admit(POLICY, facts), facts, replace(NEW, ahead=ahead, ahead_fresh=ahead))
    [pace] = [each for each in checks if not each.open]
    assert may_go_at(checks, NOW) == pace.until == NOW + timedelta(seconds=opens_in)
    assert pace.detail.get("ahead", 0) == ahead
    assert ("go before it" in pace.text) is (ahead > 0)


def test_a_device_behind_more_devices_than_are_counted_has_no_known_time() -> None:
    facts = replace(RUNS, interval_age=4.0, interval_used=10)
    behind = replace(NEW, ahead=10_000, ahead_fresh=10_000, ahead_counted=False)
    for policy in (POLICY, replace(POLICY, rate=50_000)):
        checks = explain(admit(policy, facts), facts, behind)
        [pace] = [each for each in checks if not each.open]
        assert (pace.gate, may_go_at(checks, NOW)) == (GateName.PACE, None)
        assert "10,000 or more devices go before it" in pace.text


@given(
    st.builds(Pace, st.integers(1, 300), st.floats(1, 100), st.integers(1, 20)),
    st.none() | st.floats(-2, 2),
    st.integers(0, 400),
    st.integers(0, 1000),
)
def test_may_go_at_is_the_time_at_which_claims_without_delay_reach_the_device(
    pace: Pace, age_in_intervals: float | None, used: int, ahead: int
) -> None:
    age = None if age_in_intervals is None else age_in_intervals * pace.interval
    facts = replace(RUNS, tick=pace.interval, steps=pace.steps, interval_age=age, interval_used=used)
    admission = admit(replace(POLICY, rate=pace.rate), facts)
    found = may_go_at(explain(admission, facts, replace(NEW, ahead=ahead, ahead_fresh=ahead)), NOW)
    waited, left = 0.0, ahead
    while (tokens := tokens_of(pace, age=age, used=used)).number <= left:
        if tokens.opens_interval:
            age, used = 0.0, 0
        left, used = left - tokens.number, used + tokens.number
        more_in = tokens_of(pace, age=age, used=used).more_in + pace.interval * 1e-9
        waited, age = waited + more_in, (age or 0.0) + more_in
    assert found is not None
    assert (found - NOW).total_seconds() == pytest.approx(waited, abs=pace.interval * 1e-4)


# --- A claim and explain agree


@dataclass(frozen=True)
class Queue:
    """A campaign's devices that were never sent to, in the order of the queue."""

    devices: tuple[DeviceFacts, ...]

    def claim(self, tokens: int, fresh: int) -> set[int]:
        """What the statement ``claim`` takes: retries first, by their time, then devices never sent to."""
        due = sorted((d.due_in, n) for n, d in enumerate(self.devices) if self._again(d) and d.due_in is not None)
        set_back = [n for n, d in enumerate(self.devices) if self._again(d) and d.due_in is None]
        again = [*(n for _, n in due), *set_back][:tokens]
        new = [n for n, d in enumerate(self.devices) if d.fresh][: min(fresh, tokens - len(again))]
        return {n for n in (*again, *new) if self.devices[n].addressable}

    @staticmethod
    def _again(d: DeviceFacts) -> bool:
        if not d.addressable or d.fresh:
            return False
        if d.status is ExecutionStatus.PENDING:
            return d.due_in is None or d.due_in <= 0
        if d.status not in IN_PROGRESS or d.due_in is None or d.due_in > 0 or d.finished:
            return False
        return d.attempt > d.sent_attempt or (d.failed_attempt == d.attempt and not d.out_of_time)

    def placed(self) -> list[DeviceFacts]:
        """The same devices, each with the number of devices before it."""
        found = []
        everybody = sum(self._again(d) for d in self.devices)
        for n, device in enumerate(self.devices):
            fresh = sum(d.fresh for d in self.devices[:n])
            if device.fresh:
                found.append(replace(device, ahead=everybody + fresh, ahead_fresh=fresh))
            else:
                later = inf if device.due_in is None else device.due_in
                before = [
                    m for m, d in enumerate(self.devices)
                    if self._again(d) and ((inf if d.due_in is None else d.due_in), m) < (later, n)
                ]  # fmt: skip
                found.append(replace(device, ahead=len(before)))
        return found


MOSTLY = st.sampled_from([True] * 20 + [False])
NEVER_SENT_TO = st.builds(DeviceFacts, st.just(ExecutionStatus.PENDING), addressable=MOSTLY)


def sent_to(status: ExecutionStatus, attempt: int, lacks: int, fails: int, **more: Any) -> DeviceFacts:
    return DeviceFacts(status, attempt=attempt, sent_attempt=attempt - lacks, failed_attempt=attempt - fails, **more)


SENT_TO = st.builds(
    sent_to,
    st.sampled_from([*ExecutionStatus, *IN_PROGRESS]),
    attempt=st.integers(1, 3),
    lacks=st.integers(0, 1),
    fails=st.integers(0, 1),
    due_in=st.sampled_from([None, -30.0, -20.0, -0.5, 0.0, 0.5, 30.0]),
    refused_for=st.none() | st.sampled_from(Refusal),
    addressable=MOSTLY,
    out_of_time=st.booleans(),
    finished=st.sampled_from([False] * 9 + [True]),
)
QUEUES = st.builds(lambda devices: Queue(tuple(devices)), st.lists(NEVER_SENT_TO | SENT_TO, max_size=30))
POLICIES = st.builds(
    lambda rate, cap: replace(POLICY, rate=rate, max_in_flight=cap), st.integers(1, 40), st.none() | st.integers(1, 20)
)
BRAKES = st.sampled_from([()] * 20 + [(HALT,), (FREEZE,), (HALT, FREEZE)])
FACTS = st.builds(
    Facts,
    now=st.just(NOW),
    status=st.sampled_from([*CampaignStatus, *[CampaignStatus.RUNNING] * 40]),
    tick=st.floats(0.1, 100),
    wave=st.builds(Wave, st.integers(0, 1), st.none() | st.integers(0, 30)),
    unreadable=st.sampled_from([None] * 20 + ["rollout_rate 0 is below 1"]),
    in_own_database=MOSTLY,
    targeted=st.sampled_from([None] * 20 + [3]),
    counted=MOSTLY,
    heard=MOSTLY,
    sent=st.integers(0, 30),
    in_flight=st.integers(0, 20),
    interval_age=st.none() | st.floats(-200, 200),
    interval_used=st.integers(0, 40),
    steps=st.integers(1, 20),
    brakes=BRAKES,
)


@settings(max_examples=1000)
@given(POLICIES, FACTS, QUEUES)
def test_a_device_is_claimed_exactly_if_no_gate_is_closed_to_it(policy: Policy, facts: Facts, queue: Queue) -> None:
    admission = admit(policy, facts)
    claimed = queue.claim(admission.tokens, admission.fresh)
    for number, device in enumerate(queue.placed()):
        checks = explain(admission, facts, device)
        closed = [each for each in checks if not each.open]
        assert (number in claimed) is not bool(closed), (device, checks)
        assert all(each.text for each in checks)
        assert (may_go_at(checks, NOW) == NOW) is (number in claimed) or closed


@settings(max_examples=500)
@given(st.integers(1, 3000), FACTS, QUEUES)
def test_a_host_that_sends_a_whole_tick_at_once_is_ahead_of_explain_by_less_than_an_interval(
    rate: int, facts: Facts, queue: Queue
) -> None:
    policy = replace(POLICY, rate=rate)
    host = admit(policy, replace(facts, steps=1))
    claimed = queue.claim(host.tokens, host.fresh)
    admission = admit(policy, facts)
    for number, device in enumerate(queue.placed()):
        checks = explain(admission, facts, device)
        closed = [each for each in checks if not each.open]
        assert closed or number in claimed
        if closed and number in claimed:
            assert [each.gate for each in closed] == [GateName.PACE]
            opens = may_go_at(checks, NOW)
            assert opens is not None
            assert opens - NOW < timedelta(seconds=facts.tick * 2 if (facts.interval_age or 0) < 0 else facts.tick)


def test_devices_behind_retries_wait_until_these_have_gone() -> None:
    policy = replace(POLICY, rate=3)
    [waiting] = count_waiting(admit(policy, RUNS), RUNS, pending=5, held={}, due=DueAgain(devices=7))
    assert (waiting.verdict.detail["may_go_now"], waiting.verdict.until) == (0, NOW + timedelta(seconds=20))
    [waiting] = count_waiting(admit(policy, RUNS), RUNS, pending=5, held={}, due=DueAgain(7, 1, 0, before_pending=4))
    assert (waiting.verdict.detail["may_go_now"], waiting.verdict.until) == (0, NOW + timedelta(seconds=10))


@settings(max_examples=1000)
@given(POLICIES, FACTS, QUEUES)
def test_each_pending_device_is_counted_under_the_first_gate_that_is_closed_to_it(
    policy: Policy, facts: Facts, queue: Queue
) -> None:
    admission = admit(policy, facts)
    queue = Queue(tuple(d for d in queue.devices if d.addressable))
    placed = queue.placed()
    pending = [d for d in placed if d.status is ExecutionStatus.PENDING]
    held: dict[GateName, Waiting] = {}
    for device in pending:
        verdict = own(facts, device)
        if verdict is not None and not verdict.open:
            before = held[verdict.gate].devices if verdict.gate in held else 0
            held[verdict.gate] = Waiting(verdict, before + 1)
    again = {n for n in queue.claim(len(placed), 0) if not placed[n].fresh}
    first = queue.claim(admission.tokens, 0)
    pending_again = [placed[n] for n in again if placed[n].status is ExecutionStatus.PENDING]
    due = DueAgain(
        devices=len(again),
        pending=len(pending_again),
        pending_now=sum(placed[n].status is ExecutionStatus.PENDING for n in first),
        before_pending=min((each.ahead for each in pending_again), default=0),
    )
    found = count_waiting(admission, facts, pending=len(pending), held=held, due=due)
    waiting = {each.verdict.gate: each for each in found}
    assert sum(each.devices for each in waiting.values()) == len(pending)
    expected: dict[GateName, int] = {}
    for device in pending:
        closed = next((each for each in explain(admission, facts, device) if not each.open), None)
        gate = GateName.PACE if closed is None else closed.gate
        expected[gate] = expected.get(gate, 0) + 1
    assert {gate: each.devices for gate, each in waiting.items()} == expected
    claimed = [placed[n] for n in queue.claim(admission.tokens, admission.fresh)]
    may_go_now = sum(each.status is ExecutionStatus.PENDING for each in claimed)
    told = [each.verdict.detail["may_go_now"] for each in found if "may_go_now" in each.verdict.detail]
    assert (told or [0]) == [may_go_now]
    if GateName.PACE in waiting and not may_go_now:
        closed_by_pace = [
            check.until
            for device in pending
            for check in explain(admission, facts, device)
            if check.gate is GateName.PACE and not check.open
        ]
        assert waiting[GateName.PACE].verdict.until == min(filter(None, closed_by_pace))


def test_a_terminal_device_says_how_it_ended() -> None:
    for status in TERMINAL:
        [verdict] = explain(admit(POLICY, RUNS), RUNS, DeviceFacts(status, attempt=1, sent_attempt=1, error="E_BOOT"))
        assert verdict.gate is GateName.STATUS
        assert "E_BOOT" in verdict.text
        assert verdict.detail["status"] == status
