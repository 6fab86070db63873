"""What goes wrong in one life of the engine, drawn from a seed: the same seed, the same troubles."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from rollwave.engine.failpoints import Failpoint
from tests.chaos.crew import Deed, Trap


class Trouble(StrEnum):
    """A fault from outside."""

    KILL = "kill"
    TERMINATE = "terminate"
    STOP = "stop"
    """SIGSTOP, and SIGCONT when the lease is long over."""
    DATABASE_CRASH = "database crash"
    DATABASE_RESTART = "database restart"
    BROKER_RESTART = "broker restart"
    BROKER_CRASH = "broker crash"
    """It forgets all that it was given since its last orderly stop."""
    PAUSE = "pause"
    """An operator pauses a campaign, and starts it again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign."""

    tenant: str
    devices: int
    rate: int
    max_in_flight: int | None
    canary_percent: float | None
    ends: str
    """``COMPLETED``; or ``ABORTED``, by its guardrail where ``all_bad``, else by an operator."""
    all_bad: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything about one run that is decided beforehand."""

    seed: int
    plans: tuple[Plan, ...]
    workers: int
    traps: tuple[Trap | None, ...]
    """One for each worker, in the order that they are hired; who comes after them meets none."""
    troubles: tuple[tuple[Trouble, int], ...]
    """Each with a number that says whom it meets."""
    abort_after: int
    """Commands after which an operator aborts what an operator aborts."""

    @property
    def forgetful(self) -> bool:
        """Whether the broker may lose what it has acknowledged, so that deadlines must mend it."""
        return any(trouble is Trouble.BROKER_CRASH for trouble, _ in self.troubles)

    def __str__(self) -> str:
        troubles = [trouble.value for trouble, _ in self.troubles] + [str(trap) for trap in self.traps if trap]
        return f"seed {self.seed}: {', '.join(troubles) or 'no trouble'}"


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    dice = random.Random(seed)
    plans = tuple(_plan(dice, tenant) for tenant in ("north", "south")[: dice.randint(1, 2)])
    traps = tuple(_trap(dice) for _ in range(dice.randint(1, 3)))
    return Schedule(
        seed,
        plans,
        len(traps),
        traps,
        tuple((dice.choice(list(Trouble)), dice.randint(0, 5)) for _ in range(dice.randint(1, 4))),
        abort_after=dice.randint(1, 30),
    )


def _plan(dice: random.Random, tenant: str) -> Plan:
    ends = dice.choice(["COMPLETED", "COMPLETED", "COMPLETED", "ABORTED"])
    return Plan(
        tenant,
        devices=dice.randint(20, 50),
        rate=dice.randint(1, 4),
        max_in_flight=dice.choice([None, None, 5, 15]),
        canary_percent=dice.choice([None, None, 10.0]),
        ends=ends,
        all_bad=ends == "ABORTED" and dice.random() < 0.5,
    )


def _trap(dice: random.Random) -> Trap | None:
    if dice.random() < 0.25:
        return None
    return Trap(dice.choice(list(Failpoint)), dice.choice([Deed.CRASH, Deed.CRASH, *Deed]), nth=dice.randint(1, 4))
