"""Devices that ended, by place. Most of them are successes, which all guardrails count alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rollwave.domain.execution import Place
from rollwave.domain.policy import guardrail
from rollwave.domain.policy.document.model import GuardrailRule
from rollwave.domain.policy.guardrail import Trial
from rollwave.domain.policy.trials import EndedTrial


@dataclass(slots=True)
class EndedDevices:
    """What devices that ended add to one test.

    ``successes``: the dispatch numbers of those that have one and succeeded; ``others``: the others with a number.
    """

    successes: list[int] = field(default_factory=list)
    others: list[EndedTrial] = field(default_factory=list)
    finished: int = 0
    failed: int = 0

    @property
    def numbers(self) -> list[int]:
        """The dispatch numbers of the devices that have one."""
        return self.successes + [each.number for each in self.others]

    @property
    def first_ended(self) -> list[int]:
        """The dispatch numbers of those that had not ended before."""
        return self.successes + [each.number for each in self.others if each.finished]

    def add(self, cell: EndedAtPlace, others: Sequence[EndedTrial]) -> None:
        if cell.numbered:
            self.successes += cell.successes
            self.others += others
        else:
            self.finished += len(cell.successes) + sum(each.finished for each in others)
            self.failed += sum(each.failed for each in others)


@dataclass(slots=True)
class EndedAtPlace:
    """Devices that ended, of one wave and segment: every guardrail puts them into the same group.

    ``place``: of one of them. ``numbered``: whether they have dispatch numbers. ``successes``: the numbers (0: none) of
    those that all guardrails count alike. ``others``: those that each guardrail has to look at.
    """

    place: Place | None
    numbered: bool
    successes: list[int] = field(default_factory=list)
    others: list[tuple[int, Trial]] = field(default_factory=list)

    def counted(self, rule: GuardrailRule) -> list[EndedTrial]:
        """Those of ``others`` that a guardrail counts."""
        looked_at = (
            EndedTrial(number, guardrail.is_new(each), guardrail.fails_anew(rule, each)) for number, each in self.others
        )
        return [each for each in looked_at if each.finished or each.failed] if self.others else []


def by_place(of_devices: Iterable[Trial]) -> Iterable[EndedAtPlace]:
    cells: dict[tuple[int, int, bool] | None, EndedAtPlace] = {}
    for each in of_devices:
        place, failure, before = each
        if place is None:
            key, number = None, None
        else:
            number = place.dispatch_number
            key = place.wave, place.segment, number is not None
        if (cell := cells.get(key)) is None:
            cell = cells[key] = EndedAtPlace(place, number is not None)
        if failure is None and not before:
            cell.successes.append(number or 0)
        else:
            cell.others.append((number or 0, each))
    return cells.values()
