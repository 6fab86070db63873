"""Where the devices of a campaign stand by its policy document: in which wave, in which segment, in which order.

The order of a queue is fixed when a device is placed. Later changes of its labels move it nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rollwave.domain.policy.document.model import PolicyDocument, ScheduleRule, WaveRule
from rollwave.domain.policy.document.units import Share
from rollwave.domain.policy.words import Scope

MAX_SEGMENTS = 10_000
"""Maximum number of segments of a campaign."""

MAX_HELD_FROM_THE_START = 1000
"""Largest maximum of a budget whose devices leave the queue when they are placed, all but the first of each value.

A budget with a larger one rarely holds a device, and all but its first devices would soon return.
"""

EVERYTHING = WaveRule(name="all")
"""The wave of a document without waves."""


def name_of_wave(document: PolicyDocument | None, number: int) -> str:
    """The name of a wave of a document. A document without waves has one with all devices."""
    waves = document.waves if document else ()
    return waves[number].name if number < len(waves) else EVERYTHING.name


class Order(StrEnum):
    """The order of a queue."""

    HASH = "hash"
    """By a hash of campaign and device id, so that not the same devices go first in every campaign."""
    ID = "id"
    """By the id of the execution, which is the order of device ids where the engine targets them."""
    LABEL = "label"
    """By the value of a label."""


@dataclass(frozen=True, slots=True)
class Placing:
    """What of a document decides where devices stand. An edit that changes it places all devices never sent to anew.

    ``labels``: the keys whose values make a segment. ``zoned``: devices of different time zones are in different
    segments. ``order_by``: the key of the label, for ``Order.LABEL``. ``budgets``: the label and the maximum of each:
    with a larger maximum, devices that it holds return to the queue.
    """

    waves: tuple[WaveRule, ...]
    order: Order
    order_by: str | None
    labels: tuple[str, ...]
    zoned: bool
    budgets: tuple[tuple[str, int], ...] = ()

    @property
    def selects(self) -> tuple[str | None, ...]:
        """The selector of each wave."""
        return tuple(each.select for each in self.waves)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each wave."""
        return tuple(each.name for each in self.waves)

    @property
    def holding(self) -> tuple[int, ...]:
        """The numbers of the budgets, from 1, that hold devices as soon as these are placed."""
        return tuple(
            number for number, (_, most) in enumerate(self.budgets, start=1) if most <= MAX_HELD_FROM_THE_START
        )

    @property
    def splits(self) -> bool:
        """Whether devices may be in more than one segment."""
        return bool(self.labels) or self.zoned

    def sizes(self, targets: int) -> tuple[int | None, ...]:
        """The number of devices of each wave, with shares of ``targets``; None: all that match."""
        return tuple(each.size.of(targets) if isinstance(each.size, Share) else each.size for each in self.waves)


def placing_of(document: PolicyDocument) -> Placing:
    """Read from a document where devices stand."""
    order = document.order or (Order.HASH if document.waves else Order.ID)
    kind, _, label = order.partition(":")
    return Placing(
        tuple(_without_gate(each) for each in document.waves) or (EVERYTHING,),
        Order(kind),
        label or None,
        labels_of(document),
        is_zoned(document),
        tuple((each.per, each.max_in_flight) for each in document.budgets),
    )


def labels_of(document: PolicyDocument) -> tuple[str, ...]:
    """The keys whose values make a segment, apart from time zones."""
    per = {label for each in document.guardrails or () if each.scope is Scope.SEGMENT for label in each.per or ()}
    return tuple(sorted(per))


def is_zoned(document: PolicyDocument) -> bool:
    """Whether windows depend on the devices' time zones, so that those of different zones are in different segments."""
    schedule = document.schedule or ScheduleRule()
    return any(each.differs_by_device for each in schedule.windows)


def _without_gate(wave: WaveRule) -> WaveRule:
    return wave.model_copy(update={"gate": None, "max_in_flight": None})


@dataclass(frozen=True, slots=True)
class Survey:
    """The devices that a campaign has to place, counted before the first is placed.

    ``targets``: those that fit a wave. ``segments``: their number. ``matched``: the devices that the selector of each
    wave fits (None: it has none). ``bounds``: the order key of the last device of each wave (None: the wave takes all
    that match). ``sizes``: the number of devices of each wave (None: all that match).
    """

    targets: int
    segments: int
    matched: tuple[int | None, ...]
    bounds: tuple[int | None, ...]
    sizes: tuple[int | None, ...]

    @classmethod
    def of_room(cls, placing: Placing, taken: Sequence[int]) -> Survey:
        """The waves that have room for devices that are added later. ``taken``: the devices of each wave.

        Shares are of the devices that were placed before: none of these changes its wave.
        """
        total = sum(taken)
        sizes = placing.sizes(total)
        full = [size is not None and number >= size for size, number in zip(sizes, taken, strict=True)]
        bounds = tuple(-1 if each else None for each in full)
        return cls(total, 0, (None,) * len(sizes), bounds, sizes)

    def to_json(self) -> dict[str, object]:
        """The survey as it is stored with the campaign while its devices are placed."""
        return {
            "targets": self.targets,
            "segments": self.segments,
            "matched": list(self.matched),
            "bounds": list(self.bounds),
            "sizes": list(self.sizes),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Sequence[int | None]]) -> Survey:
        """Read what :meth:`to_json` made."""
        lists = (tuple(stored[each]) for each in ("matched", "bounds", "sizes"))
        return cls(int(str(stored["targets"])), int(str(stored["segments"])), *lists)
