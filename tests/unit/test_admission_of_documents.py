"""A claim and *explain* agree under policy documents (G25), for random documents, facts and queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import Cell, ExecutionStatus
from rollwave.domain.policy.admission import Admission, admit, explain, may_go_at
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.facts import DeviceFacts, Facts, QueueFacts, SegmentGroup, SegmentOfDevice, Used
from rollwave.domain.policy.gates import own
from rollwave.domain.policy.queue import Queue, room_of
from rollwave.domain.policy.rules import Policy, Wave
from rollwave.domain.policy.waiting import AgainInSegments, DueAgain, Waiting, count_waiting
from rollwave.domain.policy.words import GateName, WaveState
from tests.unit.test_admission import BRAKES, FACTS, NOW, POLICY, SENT_TO

ZONES = (None, "UTC", "Asia/Tokyo", "Nowhere/Unknown")
WAVES = 3


@dataclass(frozen=True)
class Segment:
    """``zone``: of its devices."""

    zone: str | None
    quarantined: bool


@dataclass(frozen=True)
class Stored:
    """A device as the database has it, without its place in the queue: that is its place in the list."""

    facts: DeviceFacts
    segment: int
    wave: int


@dataclass(frozen=True)
class Campaign:
    """The devices of a campaign, and what its row says. ``turn``: the segment that the last claim took from."""

    segments: tuple[Segment, ...]
    devices: tuple[Stored, ...]
    wave: int
    state: WaveState
    turn: int
    used: Used

    def waiting(self, segment: int, *, later: bool = False) -> int:
        return sum(
            each.facts.fresh and each.segment == segment and (each.wave > self.wave) is later for each in self.devices
        )

    def queue(self) -> QueueFacts:
        """What the statements about cells read."""
        keys = {(each.zone, each.quarantined) for each in self.segments}
        groups = []
        for zone, quarantined in sorted(keys, key=str):
            numbers = [
                n for n, each in enumerate(self.segments) if (each.zone, each.quarantined) == (zone, quarantined)
            ]
            waiting = sum(self.waiting(n) for n in numbers)
            groups.append(SegmentGroup(zone, quarantined, waiting, sum(self.waiting(n, later=True) for n in numbers)))
        flying = [each for each in self.devices if not each.facts.fresh and not each.facts.finished]
        in_flight = [each for each in flying if each.facts.status not in _ENDED]
        return QueueFacts(
            groups=tuple(groups),
            wave=f"wave-{self.wave}",
            state=self.state,
            number=self.wave,
            lacking="3 of 5 devices have finished",
            wave_in_flight=sum(each.wave == self.wave for each in in_flight),
            in_flight=len(in_flight),
            firmware_size=1000,
            used=self.used,
        )

    def in_flight(self, wave: int) -> int:
        return sum(
            each.wave == wave and not each.facts.fresh and not each.facts.finished and each.facts.status not in _ENDED
            for each in self.devices
        )

    def rooms(self, admission: Admission) -> dict[Cell, int]:
        """What the statement ``next_rooms`` answers: of each wave the segments in turn, as many as the devices need."""
        queue, fresh = admission.queue, admission.fresh
        if queue is None or not fresh:
            return {}
        numbers = list(range(len(self.segments)))
        in_turn = [n for n in numbers if n > self.turn] + [n for n in numbers if n <= self.turn]
        found: dict[Cell, int] = {}
        for cell in (Cell(wave, n) for wave in range(self.wave + 1) for n in in_turn):
            each, waiting = self.segments[cell.segment], len(self.fresh(cell))
            if waiting and not each.quarantined and is_open(queue, each.zone) and sum(found.values()) < fresh:
                found[cell] = waiting
        return found

    def fresh(self, cell: Cell) -> list[int]:
        return [n for n, each in enumerate(self.devices) if each.facts.fresh and (each.wave, each.segment) == cell]

    def claim(self, admission: Admission) -> set[int]:
        """What the statement ``claim`` takes."""
        if not admission.tokens:
            return set()
        again = {n for n, each in enumerate(self.devices) if self._again(each) and not self._closed(admission, each)}
        fresh: list[int] = []
        for cell, room in self.rooms(admission).items():
            fresh += self.fresh(cell)[:room]
        return again | set(fresh[: admission.fresh])

    def _place(self, number: int) -> tuple[int, int]:
        return self.devices[number].wave, number

    def _closed(self, admission: Admission, device: Stored) -> bool:
        segment = self.segments[device.segment]
        return admission.queue is None or segment.quarantined or not is_open(admission.queue, segment.zone)

    @staticmethod
    def _again(device: Stored) -> bool:
        d = device.facts
        if d.fresh or (d.due_in is not None and d.due_in > 0):
            return False
        if d.status is ExecutionStatus.PENDING:
            return True
        if d.status in _ENDED or d.finished or d.due_in is None:
            return False
        return d.attempt > d.sent_attempt or (d.failed_attempt == d.attempt and not d.out_of_time)

    def facts_of(self, number: int, admission: Admission) -> DeviceFacts:
        """The facts about one device, as *explain* reads them."""
        each = self.devices[number]
        room = room_of(each.segment, self.rooms(admission), admission.fresh)
        segment_ = self.segments[each.segment]
        ahead = sum(
            other.facts.fresh and other.segment == each.segment and self._place(n) < self._place(number)
            for n, other in enumerate(self.devices)
        )
        place = SegmentOfDevice(each.segment, each.wave, segment_.zone, segment_.quarantined, room)
        return replace(each.facts, segment=place, ahead=ahead, ahead_fresh=ahead)


def is_open(queue: Queue, zone: str | None) -> bool:
    return queue.open_zones is None or zone in queue.open_zones


_ENDED = {ExecutionStatus.SUCCESS, ExecutionStatus.FAILED, ExecutionStatus.SKIPPED}

NEVER_SENT_TO = st.just(DeviceFacts(ExecutionStatus.PENDING))
DEVICES = NEVER_SENT_TO | SENT_TO.map(lambda each: replace(each, addressable=True))


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    segments = draw(st.lists(st.builds(Segment, st.sampled_from(ZONES), st.booleans()), min_size=1, max_size=4))
    place = st.builds(Stored, DEVICES, st.integers(0, len(segments) - 1), st.integers(0, WAVES - 1))
    used = st.builds(Used, st.none() | st.floats(-200, 200), st.integers(0, 20), st.floats(0, 1, exclude_max=True))
    return Campaign(
        tuple(segments),
        tuple(draw(st.lists(place, max_size=25))),
        draw(st.integers(0, WAVES - 1)),
        draw(st.sampled_from([WaveState.OPEN, WaveState.SOAKING, WaveState.AWAITING_APPROVAL])),
        draw(st.integers(0, len(segments) - 1)),
        draw(used),
    )


def window(kind: str, hour: int, zone: str) -> dict[str, object]:
    return {
        "name": f"{kind}-{hour}-{zone}",
        "kind": kind,
        "cron": f"0 {hour} * * *",
        "duration": "1h",
        "time_zone": zone,
    }


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


# It is eight in UTC and five in the afternoon in Tokyo.
WINDOWS = st.lists(
    st.builds(window, st.sampled_from(["allow", "deny"]), st.sampled_from([8, 17]), st.sampled_from(["device", "UTC"])),
    max_size=2,
    unique_by=lambda each: str(each["name"]),
)
DOCUMENTS = some(
    pace=some(
        per_minute=st.integers(1, 300),
        max_in_flight=st.integers(1, 20),
        bytes=some(in_flight=st.sampled_from(["500B", "5000B"]), per_second=st.sampled_from(["50B", "5000B"])),
    ),
    schedule=some(
        start=st.sampled_from([(NOW + timedelta(hours=hours)).isoformat() for hours in (-1, 1)]),
        windows=WINDOWS,
        ignore_freezes=st.booleans(),
    ),
).map(lambda each: replace(POLICY, document=PolicyDocument.model_validate(each)))

OPEN_FACTS = st.builds(
    Facts,
    now=st.just(NOW),
    status=st.just(CampaignStatus.RUNNING),
    tick=st.floats(0.1, 100),
    wave=st.just(Wave(0, None)),
    steps=st.integers(1, 20),
    brakes=BRAKES,
)
WAVE_CAPS = st.dictionaries(st.integers(0, WAVES - 1), st.integers(1, 10))


def with_queue(facts: Facts, campaign: Campaign, caps: Mapping[int, int]) -> Facts:
    return replace(facts, queue=replace(campaign.queue(), wave_max_in_flight=caps.get(campaign.wave)))


@settings(max_examples=300)
@given(DOCUMENTS, OPEN_FACTS | FACTS, campaigns(), WAVE_CAPS)
def test_a_device_is_claimed_exactly_if_no_gate_is_closed_to_it(
    policy: Policy, facts: Facts, campaign: Campaign, caps: Mapping[int, int]
) -> None:
    facts = with_queue(facts, campaign, caps)
    admission = admit(policy, facts)
    claimed = campaign.claim(admission)
    for number, stored in enumerate(campaign.devices):
        checks = explain(admission, facts, campaign.facts_of(number, admission))
        closed = [each for each in checks if not each.open]
        assert (number in claimed) is not bool(closed), (stored, checks)
        assert all(each.text for each in checks)
        if number in claimed:
            assert may_go_at(checks, NOW) == NOW
    fresh = sum(campaign.devices[n].facts.fresh and campaign.devices[n].wave == campaign.wave for n in claimed)
    cap = caps.get(campaign.wave)
    assert not fresh or cap is None or campaign.in_flight(campaign.wave) + fresh <= cap
    waits = any(stored.facts.fresh for stored in campaign.devices)
    assert claimed or not waits or admission.closed or (admission.queue and admission.queue.held_back)


@settings(max_examples=300)
@given(DOCUMENTS, OPEN_FACTS | FACTS, campaigns(), WAVE_CAPS)
def test_each_pending_device_is_counted_once_and_under_its_own_gate(
    policy: Policy, facts: Facts, campaign: Campaign, caps: Mapping[int, int]
) -> None:
    facts = with_queue(facts, campaign, caps)
    admission = admit(policy, facts)
    devices = [campaign.facts_of(number, admission) for number in range(len(campaign.devices))]
    pending = [each for each in devices if each.status is ExecutionStatus.PENDING]
    verdicts = [verdict for each in pending if (verdict := own(facts, each)) is not None and not verdict.open]
    held = {
        gate: Waiting(first, 1 + len(list(rest)))
        for gate, of_gate in groupby(sorted(verdicts, key=_gate), key=_gate)
        for first, rest in [(next(of_gate), of_gate)]
    }
    in_line = [each for each in pending if own(facts, each) not in verdicts]
    again = Counter(
        (each.segment.time_zone, each.segment.quarantined) for each in in_line if not each.fresh and each.segment
    )
    of_segments = tuple(AgainInSegments(number, *of) for of, number in again.items())
    due = DueAgain(again.total(), again.total(), again.total() if admission.tokens else 0, of_segments=of_segments)
    found = count_waiting(admission, facts, pending=len(pending), held=held, due=due)
    assert sum(each.devices for each in found) == len(pending)
    closed_to = [
        next((each.gate for each in explain(admission, facts, device) if not each.open), None)
        for device in (in_line if admission.sends else pending)
    ]
    counted: Counter[GateName] = Counter()
    for each in found:
        counted[each.verdict.gate] += each.devices
    # A limit on a number does not know which devices of several segments are over it.
    expected = Counter(gate for gate in closed_to if gate is not None and gate not in NUMBERS)
    assert {gate: counted[gate] for gate in expected} == dict(expected)
    may_go = sum(int(str(each.verdict.detail["may_go_now"])) for each in found if "may_go_now" in each.verdict.detail)
    assert may_go == closed_to.count(None)
    assert len(found) == len({(each.verdict.gate, each.verdict.text) for each in found})


NUMBERS = {GateName.IN_FLIGHT, GateName.BYTES, GateName.PACE}


def _gate(verdict: Any) -> GateName:
    gate: GateName = verdict.gate
    return gate


def test_a_claim_that_takes_nothing_says_when_to_look_again() -> None:
    document = PolicyDocument.model_validate({"schedule": {"windows": [window("allow", 17, "device")]}})
    closed = Campaign(
        (Segment("UTC", quarantined=False),), (Stored(DeviceFacts(ExecutionStatus.PENDING), 0, 0),),
        0, WaveState.OPEN, 0, Used(None),
    )  # fmt: skip
    facts = Facts(now=NOW, status=CampaignStatus.RUNNING, tick=10.0, wave=Wave(0, None), queue=closed.queue())
    admission = admit(replace(POLICY, document=document), facts)
    assert closed.claim(admission) == set()
    assert admission.look_again_in == (datetime(2027, 1, 11, 17, tzinfo=UTC) - NOW).total_seconds()
