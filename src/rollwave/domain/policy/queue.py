"""The queue of a campaign under a policy document: how many devices may get their first command now, and why not more.

Gates about single devices (window, wave, approval, quarantine) close whole segments or waves, and devices that a budget
holds are not in the queue, so that a claim never steps over devices. The other gates limit a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rollwave.domain.execution import Cell
from rollwave.domain.policy import pace, time_gates
from rollwave.domain.policy.document.model import PaceRule, PolicyDocument
from rollwave.domain.policy.facts import Facts, QueueFacts, SegmentOfDevice
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.pace import Rate, Step
from rollwave.domain.policy.placing import is_zoned
from rollwave.domain.policy.words import GateName, WaveState

_NO_WINDOWS = Verdict(GateName.WINDOW, None, "the policy has no windows")


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The number of ``devices`` that a gate of their segment or wave keeps out of the queue."""

    verdict: Verdict
    devices: int


@dataclass(frozen=True, slots=True)
class Queue:
    """What a document says about the devices that wait for their first command.

    ``windows``: the verdict for each time zone of the waiting devices (None: of those without one). ``ready``: number
    of devices that only numbers limit. ``limits``: the verdicts of the gates that limit a number, in their order.
    ``held_back``: devices behind other gates. ``step``: of the pace, which a claim stores. ``document``: what it was
    judged by. ``rooms``: the cells to take devices from, in their turn, each with the number of its devices; None: it
    is not known yet which of them have any.
    """

    windows: Mapping[str | None, Verdict]
    ready: int
    limits: tuple[Verdict, ...]
    held_back: tuple[HeldBack, ...]
    step: Step | None
    document: PolicyDocument
    rooms: Mapping[Cell, int] | None = None

    @property
    def open_zones(self) -> tuple[str | None, ...] | None:
        """The time zones whose segments may be sent to now; None: every one, since no window depends on zones."""
        if not is_zoned(self.document) and self.windows[None].open:
            return None
        return tuple(zone for zone, verdict in self.windows.items() if verdict.open)

    def window_of(self, time_zone: str | None) -> Verdict:
        """The verdict for devices of a time zone. A zone of no waiting device has that of devices without one."""
        return self.windows.get(time_zone) or self.windows[None]

    @property
    def fresh(self) -> int:
        """Number of devices that may get their first command now."""
        return min([self.ready, *(each.room for each in self.limits if each.room is not None)])

    @property
    def opens_at(self) -> datetime | None:
        """The earliest time at which a gate that is closed now opens; None: none of them has a time."""
        closed = [each.verdict for each in self.held_back if each.devices]
        closed += [each for each in self.limits if not each.open] if self.ready else []
        return min((each.until for each in closed if each.until is not None), default=None)


def queue_of(document: PolicyDocument, facts: Facts, queue: QueueFacts) -> Queue:
    """Judge the queue of a campaign.

    Raises:
        UnreadableRow: the pace limits bytes, and the firmware's size is unknown.
    """
    zones = {None, *(each.time_zone for each in queue.groups)}
    windows = {zone: time_gates.window(document, zone, facts.now) or _NO_WINDOWS for zone in zones}
    ready, held_back, segments = 0, [], set[int | None]()
    for group in queue.groups:
        if not windows[group.time_zone].open:
            held_back.append(HeldBack(windows[group.time_zone], group.waiting + group.in_later_waves))
            continue
        held_back.append(HeldBack(_next_wave(queue), group.in_later_waves))
        if group.quarantined:
            held_back.append(HeldBack(quarantine(), group.waiting))
        else:
            ready += group.waiting - group.held
            segments |= {group.first, group.last}
            held_back.append(HeldBack(budget(document), group.held))
    limits, step = _limits(document.pace or PaceRule(), facts, queue)
    rooms = queue.rooms
    if rooms is None and queue.only_wave is not None and len(only := segments - {None}) == 1:
        rooms = {Cell(queue.only_wave, number): ready for number in only if number is not None}
    return Queue(windows, ready, limits, _joined(held_back), step, document, rooms)


def _next_wave(queue: QueueFacts) -> Verdict:
    """The verdict for devices of waves after the present one."""
    detail: dict[str, object] = {"wave": queue.wave, "state": queue.state}
    if queue.state is WaveState.AWAITING_APPROVAL:
        return Verdict(GateName.APPROVAL, 0, f"the gate of wave {queue.wave} awaits an approval", detail=detail)
    text = f"wave {queue.wave} is not passed"
    if queue.lacking:
        text += f": {queue.lacking}"
    return Verdict(GateName.WAVE, 0, text, queue.until, detail)


def wave_of(queue: QueueFacts, *, later: bool) -> Sequence[Verdict]:
    """The verdicts of ``wave`` and ``approval`` for one device. ``later``: its wave is after the present one."""
    if later:
        closed = _next_wave(queue)
        if closed.gate is GateName.WAVE:
            return [closed]
        return [Verdict(GateName.WAVE, None, f"wave {queue.wave} has all that its gate asks for"), closed]
    return [Verdict(GateName.WAVE, None, f"the device's wave is open; the present one is {queue.wave}")]


def room_of(segment: int, rooms: Mapping[Cell, int], fresh: int) -> int:
    """The number of devices of a segment among the next ``fresh`` ones: a claim takes one cell after the other."""
    room, left = 0, fresh
    for cell, waiting in rooms.items():
        taken = min(waiting, left)
        room, left = room + taken * (cell.segment == segment), left - taken
    return room


def quarantine() -> Verdict:
    """The verdict for devices of a segment under quarantine."""
    return Verdict(GateName.QUARANTINE, 0, "a guardrail has put the device's segment under quarantine")


def budget(document: PolicyDocument) -> Verdict:
    """The verdict for devices that budgets hold."""
    rules = [{"name": each.name, "per": each.per, "max_in_flight": each.max_in_flight} for each in document.budgets]
    limits = " or ".join(f"{each.max_in_flight:,} with the same {each.per} ({each.name})" for each in document.budgets)
    text = f"as many devices are in flight as the policy's budgets allow: {limits}"
    return Verdict(GateName.BUDGET, 0, text, detail={"budgets": rules})


def budget_of(document: PolicyDocument, segment: SegmentOfDevice) -> Verdict | None:
    """The verdict for one device: of its first budget without room, or else of its first. None: no budget counts it.

    Devices that go before it may take the last places of a budget.
    """
    if not segment.budgets:
        return None
    pairs = [(each, document.budgets[each.number - 1]) for each in segment.budgets]
    full = (each for each in pairs if each[0].in_flight >= each[1].max_in_flight or each[0].number == segment.behind)
    found, rule = next(full, pairs[0])
    detail: dict[str, object] = {
        "budget": rule.name,
        "label": rule.per,
        "value": found.value,
        "in_flight": found.in_flight,
        "max_in_flight": rule.max_in_flight,
    }
    are = "device is" if found.in_flight == 1 else "devices are"
    text = f"{found.in_flight:,} {are} in flight with {rule.per} {found.value}, and budget {rule.name} allows "
    text += f"{rule.max_in_flight:,}"
    room = max(0, rule.max_in_flight - found.in_flight)
    if (segment.held or segment.behind) and room:
        return Verdict(
            GateName.BUDGET, 0, f"{text}; other devices with {rule.per} {found.value} go before it", detail=detail
        )
    return Verdict(GateName.BUDGET, room, text, detail=detail)


def _limits(rule: PaceRule, facts: Facts, queue: QueueFacts) -> tuple[tuple[Verdict, ...], Step | None]:
    rate: Rate | None = pace.rate_of(rule, succeeded=queue.succeeded, size=queue.firmware_size)
    step = None
    if rate is not None:
        now = facts.now.timestamp()
        step = pace.step_of(rate.per_minute, tick=facts.tick, steps=facts.steps, stored=queue.used, now=now)
    in_flight = pace.in_flight(rule.max_in_flight, queue.in_flight)
    if queue.wave_max_in_flight is not None:
        of_wave = pace.in_flight(queue.wave_max_in_flight, queue.wave_in_flight)
        if in_flight.room is None or (of_wave.room or 0) <= in_flight.room:
            number, devices, rest = of_wave.text.split(" ", 2)
            text = f"{number} {devices} of wave {queue.wave} {rest}"
            in_flight = replace(of_wave, text=text, detail={**of_wave.detail, "wave": queue.wave})
    in_bytes = pace.bytes_(rule, facts, rate, step, size=queue.firmware_size, number=queue.in_flight)
    return (in_flight, in_bytes, pace.pace(rule, facts, rate, step)), step


def _joined(held_back: Iterable[HeldBack]) -> tuple[HeldBack, ...]:
    """One entry for each verdict, in the order of the gates."""
    joined: dict[tuple[GateName, str], HeldBack] = {}
    for each in held_back:
        key = each.verdict.gate, each.verdict.text
        before = joined.get(key)
        joined[key] = each if before is None else replace(each, devices=each.devices + before.devices)
    order = list(GateName)
    return tuple(
        sorted((each for each in joined.values() if each.devices), key=lambda each: order.index(each.verdict.gate))
    )
