"""Brakes: what stops all sending of a tenant. A halt stops it until it is lifted, a freeze from one time to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

HALT_NAME = "halt"
"""The name of a halt. A tenant has only one."""

MAX_FREEZES = 100
"""Maximum number of freezes of a tenant that are not over."""


class BrakeKind(StrEnum):
    """The kinds of brakes, in the order in which they are asked."""

    HALT = "halt"
    FREEZE = "freeze"


@dataclass(frozen=True, slots=True)
class Brake:
    """A brake of a tenant, with who set it and why.

    It applies from ``start`` to before ``end`` (None: until it is lifted, which is a halt).
    """

    kind: BrakeKind
    name: str
    start: datetime
    end: datetime | None
    by: str
    reason: str | None = None

    @property
    def label(self) -> str:
        """Its short name among all brakes of its tenant: ``halt`` or ``freeze:<name>``."""
        return self.kind.value if self.kind is BrakeKind.HALT else f"{self.kind.value}:{self.name}"

    def applies(self, at: datetime) -> bool:
        """Whether it stops sending at this time. A halt does at every time: it was just read, so it is in force."""
        return self.kind is BrakeKind.HALT or (self.end is not None and self.start <= at < self.end)


def of_label(label: str) -> tuple[BrakeKind, str]:
    """The kind and the name of the brake with this label."""
    kind, _, name = label.partition(":")
    return BrakeKind(kind), name or HALT_NAME


def halt_of(brakes: Iterable[Brake]) -> Brake | None:
    """The halt among these brakes."""
    return next((each for each in brakes if each.kind is BrakeKind.HALT), None)


def freezes_in_force(brakes: Iterable[Brake], at: datetime) -> Sequence[Brake]:
    """The freezes that stop sending at this time, the one that ends last first."""
    found = [each for each in brakes if each.kind is BrakeKind.FREEZE and each.applies(at)]
    return sorted(found, key=lambda each: (each.end or each.start, each.name), reverse=True)


def thaws_at(brakes: Iterable[Brake], at: datetime) -> datetime | None:
    """When the last of the freezes has ended that follow one another without a gap from ``at`` on; None: none does."""
    until: datetime | None = None
    freezes = [each for each in brakes if each.kind is BrakeKind.FREEZE]
    for each in sorted(freezes, key=lambda each: each.start):
        if each.end is not None and each.start <= (until or at) and each.end > (until or at):
            until = each.end
    return until
