"""The faults of one schedule, drawn from a seed. The same seed gives the same faults."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum

from rollwave.engine.failpoints import Failpoint
from rollwave.mqtt.topics import command_topic
from tests.chaos.documents import FIRST_ACTS, Act
from tests.chaos.injected_faults import PROGRAMMING_ERRORS, Effect, InjectedFault
from tests.chaos.link import OF_A_TOPIC, LinkFault, LinkTrouble


class Trouble(StrEnum):
    """A fault from outside the workers."""

    KILL = "kill"
    TERMINATE = "terminate"
    STOP = "stop"
    """SIGSTOP, and SIGCONT long after the lease has ended."""
    DATABASE_CRASH = "database crash"
    DATABASE_RESTART = "database restart"
    BROKER_RESTART = "broker restart"
    BROKER_CRASH = "broker crash"
    """The broker loses everything received since its last orderly stop."""
    PAUSE = "pause"
    """An operator pauses a campaign and starts it again."""


DEADLINE, TIMEOUT, LONG_PAUSE = 5.0, 6.0, 8.0
"""Progress timeout and device timeout of a campaign that is paused for longer.

The last value is the length of the pause. All are in seconds.
"""

MOST_OF_A_TOPIC = 2
"""Maximum number of devices over whose topics the broker ends the connection."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign."""

    tenant: str
    devices: int
    rate: int
    max_in_flight: int | None
    canary_percent: float | None
    ends: str
    """``COMPLETED``, or ``ABORTED``: by its guardrail if ``all_bad``, otherwise by an operator."""
    all_bad: bool
    documented: bool = False
    """Whether it follows a policy document, drawn when it begins, and not the flat columns above."""

    @property
    def is_cancelled(self) -> bool:
        """Whether an operator cancels it, so that its devices in progress are told."""
        return self.documented and self.ends == "ABORTED" and not self.all_bad


@dataclass(frozen=True, slots=True)
class Schedule:
    """All decisions about one run, made in advance."""

    seed: int
    plans: tuple[Plan, ...]
    workers: int
    faults: tuple[InjectedFault | None, ...]
    """One injected fault for each worker, in the order in which workers start. Later workers have none."""
    troubles: tuple[tuple[Trouble, int], ...]
    """Faults from outside, each with a number that chooses the worker or campaign affected."""
    abort_after: int
    """The number of commands after which an operator aborts a campaign that is to be aborted."""
    link: tuple[LinkTrouble, ...] = ()
    """Faults between workers and broker. Empty: workers connect to the broker directly."""
    long_pause: bool = False
    """Whether an operator pauses the campaigns for longer than any device timeout."""
    acts: tuple[Act, ...] = ()
    """What operators do to the campaigns under a document, one after the other."""
    cancel_under_halt: bool = False
    """Whether a campaign under a document that is cancelled is halted before, and nobody lifts the halt."""

    @property
    def forgetful(self) -> bool:
        """Whether the broker may lose acknowledged messages, so that deadlines have to recover them."""
        return any(trouble is Trouble.BROKER_CRASH for trouble, _ in self.troubles)

    def __str__(self) -> str:
        troubles = [trouble.value for trouble, _ in self.troubles] + [str(fault) for fault in self.faults if fault]
        troubles += [str(each) for each in self.link] + ["long pause"] * self.long_pause
        troubles += [each.value for each in self.acts] + ["a document"] * any(each.documented for each in self.plans)
        troubles += ["cancel under a halt"] * self.cancel_under_halt
        return f"seed {self.seed}: {', '.join(troubles) or 'no trouble'}"


DOCUMENTS_FROM = 10_000
"""The lowest seed that may draw policy documents."""

ALL_ACTS_FROM = 50_000
"""The lowest seed that may draw every act of an operator, and more of them."""


def draw(seed: int) -> Schedule:
    """The schedule of a seed. From ``DOCUMENTS_FROM`` on, campaigns of odd seeds follow policy documents."""
    flat = _draw_flat(seed)
    return _with_documents(flat) if seed >= DOCUMENTS_FROM and seed % 2 else flat


def _with_documents(flat: Schedule) -> Schedule:
    """The same faults, but for those that choose devices by their place in the queue. The last tenant may stay flat."""
    dice = random.Random(f"documents {flat.seed}")
    mixed = len(flat.plans) > 1 and dice.random() < 0.3
    plans = tuple(replace(each, documented=not mixed or number == 0) for number, each in enumerate(flat.plans))
    link = tuple(each for each in flat.link if not each.topics)
    acts = [
        act for act in (FIRST_ACTS if flat.seed < ALL_ACTS_FROM else Act) if not (act is Act.RETRY and flat.forgetful)
    ]
    most = 5 if flat.seed < ALL_ACTS_FROM else 8
    chosen = tuple(dice.choice(acts) for _ in range(dice.randint(1, most)))
    halted = flat.seed >= ALL_ACTS_FROM and dice.random() < 0.5 and any(each.is_cancelled for each in plans)
    return replace(flat, plans=plans, link=link, acts=chosen, long_pause=False, cancel_under_halt=halted)


def _draw_flat(seed: int) -> Schedule:
    dice = random.Random(seed)
    plans = tuple(_plan(dice, tenant) for tenant in ("north", "south")[: dice.randint(1, 2)])
    faults = [_fault(dice) for _ in range(dice.randint(1, 3))]
    troubles = tuple((dice.choice(list(Trouble)), dice.randint(0, 5)) for _ in range(dice.randint(1, 4)))
    abort_after = dice.randint(1, 30)
    if dice.random() < 0.5:
        faults[dice.randrange(len(faults))] = _programming_error(dice)
    link = _link(dice, plans[0]) if dice.random() < 0.5 else ()
    if any(trouble.topics for trouble in link):  # These devices are sent to in one batch with others.
        plans = (replace(plans[0], rate=dice.randint(10, 30)), *plans[1:])
    schedule = Schedule(seed, plans, len(faults), tuple(faults), troubles, abort_after, link)
    nothing_is_lost = not schedule.forgetful and all(plan.ends == "COMPLETED" for plan in plans)
    return replace(schedule, long_pause=nothing_is_lost and dice.random() < 0.3)


def _programming_error(dice: random.Random) -> InjectedFault:
    point, error = dice.choice(list(Failpoint)), dice.choice(PROGRAMMING_ERRORS)
    return InjectedFault(point, Effect.RAISE, nth=dice.randint(1, 4), error=error, times=dice.choice([1, 1, 3, 6]))


def _link(dice: random.Random, plan: Plan) -> tuple[LinkTrouble, ...]:
    """Up to two faults that last for a while, and perhaps a fault of one device's topic."""
    passing = dice.sample([fault for fault in LinkFault if fault not in OF_A_TOPIC], dice.randint(0, 2))
    troubles = [
        LinkTrouble(fault, dice.uniform(1.5, 4.0), delay=dice.uniform(0.01, 0.1), from_start=dice.random() < 0.6)
        for fault in passing
    ]
    if not troubles or dice.random() < 0.5:
        # Not a device of the first wave: the second wave would wait for it.
        late = dice.sample(range(plan.devices // 2, plan.devices + 1), dice.randint(1, MOST_OF_A_TOPIC))
        topics = tuple(command_topic(plan.tenant, f"dev-{number}") for number in late)
        troubles.append(LinkTrouble(dice.choice(list(OF_A_TOPIC)), 0.0, topics=topics, from_start=True))
    return tuple(troubles)


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


def _fault(dice: random.Random) -> InjectedFault | None:
    if dice.random() < 0.25:
        return None
    return InjectedFault(
        dice.choice(list(Failpoint)), dice.choice([Effect.CRASH, Effect.CRASH, *Effect]), nth=dice.randint(1, 4)
    )
