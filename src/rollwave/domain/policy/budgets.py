"""Disruption budgets of a policy document: which devices a claim may take, and which wait for one of the same value.

A budget limits the devices in flight that have the same value of a label. A device without the label has no limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rollwave.domain.execution import Cell
from rollwave.domain.ids import DeviceId
from rollwave.domain.policy.document.model import PolicyDocument


class Key(NamedTuple):
    """One value of a budget. ``budget``: its place in the document, from 1."""

    budget: int
    value: str


def keys_of(values: Iterable[str | None] | None) -> list[Key]:
    """The values that count a device. ``values``: its value for each budget; None: it does not have the label."""
    return [Key(number, value) for number, value in enumerate(values or (), start=1) if value is not None]


def caps_of(document: PolicyDocument) -> tuple[int, ...]:
    """The maximum of each budget, in the document's order."""
    return tuple(each.max_in_flight for each in document.budgets)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device at the head of the queue.

    ``in_flight``: for each of its ``keys``, the devices in flight that have the value. ``addressable`` False: the claim
    skips the device, so that it is never in flight.
    """

    device_id: DeviceId
    cell: Cell
    place: str
    keys: tuple[Key, ...]
    in_flight: tuple[int, ...]
    addressable: bool = True


class Held(NamedTuple):
    """A device that leaves the queue until a device with the same value ends."""

    candidate: Candidate
    key: Key


class Return(NamedTuple):
    """A number of devices held for a value that return to the queue. ``segment`` None: so many of each segment."""

    key: Key
    segment: int | None
    devices: int


@dataclass(slots=True)
class Choice:
    """The choice of one claim among candidates, which come in several groups.

    ``accepted``: devices that may be in flight together. ``taken``: how many of them have each value.
    """

    caps: Sequence[int]
    room: int
    accepted: list[Candidate] = field(default_factory=list)
    taken: Counter[Key] = field(default_factory=Counter)

    @property
    def full(self) -> bool:
        """Whether as many devices are accepted as the claim may take."""
        return len(self.accepted) >= self.room

    def look_at(self, candidates: Iterable[Candidate]) -> tuple[list[Held], list[Return]]:
        """Accept candidates in their order until the claim is full. Returns the others, and who takes their place.

        A candidate is held for its first value that has as many devices in flight as its budget allows. It may have
        been in the queue since another of its values has room: then the next devices held for that one return. Twice as
        many as such candidates, so that a long run of them takes few rounds.
        """
        held: list[Held] = []
        left: Counter[tuple[Key, int]] = Counter()
        for each in candidates:
            if self.full:
                break
            rooms = [self._room(key, number) for key, number in zip(each.keys, each.in_flight, strict=True)]
            blocked = next((key for key, room in zip(each.keys, rooms, strict=True) if room <= 0), None)
            if each.addressable and blocked is not None:
                held.append(Held(each, blocked))
            else:
                self.accepted.append(each)
                if each.addressable:
                    self.taken.update(each.keys)
                    continue
            left.update((key, each.cell.segment) for key, room in zip(each.keys, rooms, strict=True) if room > 0)
        return held, [Return(key, segment, 2 * number) for (key, segment), number in left.items()]

    def _room(self, key: Key, in_flight: int) -> int:
        return self.caps[key.budget - 1] - in_flight - self.taken[key]


def freed(cap: int, *, before: int, after: int) -> int:
    """The places that become free as the devices in flight fall from ``before`` to ``after``.

    An operator's retry may put more devices in flight than ``cap``: then the first to end free none.
    """
    return max(0, cap - after) - max(0, cap - before)


@dataclass(frozen=True, slots=True)
class BudgetOfDevice:
    """A budget that counts a device, by its ``number`` in the document (from 1), and the devices in flight now."""

    number: int
    value: str
    in_flight: int
