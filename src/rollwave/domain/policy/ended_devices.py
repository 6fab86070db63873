"""Devices that ended, by place. Most of them are successes, which all guardrails count alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from rollwave.domain.execution import WAVE_BITS, Cell
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

    def add(self, at_place: EndedAtPlace, others: Sequence[EndedTrial]) -> None:
        if at_place.numbered:
            self.successes += at_place.successes
            self.others += others
        else:
            self.finished += len(at_place.successes) + sum(each.finished for each in others)
            self.failed += sum(each.failed for each in others)


@dataclass(slots=True)
class EndedAtPlace:
    """Devices that ended, of one wave and segment: every guardrail puts them into the same group.

    ``cell``: None if they have no place. ``numbered``: whether they have dispatch numbers. ``successes``: the numbers
    (0: none) of those that all guardrails count alike. ``others``: those that each guardrail has to look at.
    """

    cell: Cell | None
    numbered: bool
    successes: list[int] = field(default_factory=list)
    others: list[tuple[int, Trial]] = field(default_factory=list)

    @property
    def succeeded(self) -> int:
        return len(self.successes) + sum(each.failure is None for _, each in self.others)

    @property
    def failed(self) -> int:
        return sum(each.failure is not None for _, each in self.others)

    def counted(self, rule: GuardrailRule) -> list[EndedTrial]:
        """Those of ``others`` that a guardrail counts."""
        looked_at = (
            EndedTrial(number, guardrail.is_new(each), guardrail.fails_anew(rule, each)) for number, each in self.others
        )
        return [each for each in looked_at if each.finished or each.failed] if self.others else []


class EndedInCampaign:
    """The devices of one campaign that one transaction has ended, by place.

    A batch of reports may end a thousand, nearly all of them successes, so these are a number each and no object.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self.budget_values: list[Sequence[str | None]] = []
        """Of each device that has any: its value for each budget of the document."""
        self._places: dict[tuple[int | None, int | None, bool], EndedAtPlace] = {}
        for each in trials:
            self.add(each)

    @property
    def places(self) -> Collection[EndedAtPlace]:
        return self._places.values()

    def add(self, trial: Trial) -> None:
        """Add a device, whatever became of it."""
        place = trial.place
        if place is None:
            self._at(None, None, False).others.append((0, trial))
            return
        if place.budget_values:
            self.budget_values.append(place.budget_values)
        number = place.dispatch_number
        at = self._at(place.segment, place.wave, number is not None)
        at.others.append((number or 0, trial))

    def succeeded(
        self,
        segment: int | None,
        position: int | None,
        number: int | None,
        budget_values: Sequence[str | None] | None = None,
    ) -> None:
        """Add a success of a device that has not ended before, by the columns of its place."""
        if not segment or position is None:
            self._at(None, None, False).successes.append(0)
            return
        if budget_values:
            self.budget_values.append(budget_values)
        self._at(abs(segment), (position >> WAVE_BITS) - 1, number is not None).successes.append(number or 0)

    def _at(self, segment: int | None, wave: int | None, numbered: bool) -> EndedAtPlace:
        key = segment, wave, numbered
        if (found := self._places.get(key)) is None:
            cell = None if segment is None or wave is None else Cell(wave, segment)
            found = self._places[key] = EndedAtPlace(cell, numbered)
        return found
