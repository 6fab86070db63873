"""Does it cost more the larger the campaign is? The same statements, in turn, on databases of three sizes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median

from bench import load, memory
from bench.engine import Engine
from bench.lab import Database
from bench.load import Key, device_name
from bench.session import Session
from rollwave.domain.execution import ExecutionStatus
from rollwave.engine import identity, overview
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.mqtt.topics import STATUS_FILTER
from rollwave.settings import Settings
from rollwave.store import campaigns, listeners, views
from rollwave.store.database import Pool
from rollwave.store.executions import Claimed
from rollwave.store.listeners import Lock

SIZES = (10_000, 1_000_000)
"""Devices of the campaigns that the largest one is compared with."""

BATCH = 200
"""Small enough for the smallest campaign to have one for every round."""

WARM, ROUNDS = 3, 30

ENOUGH = 8.0
"""Seconds that one question may take in all on one database, once it has been answered seven times."""


@dataclass(slots=True)
class Subject:
    """A database of one size, and how long each question took there."""

    engine: Engine
    size: int
    lock: Lock
    claimed: Sequence[Claimed] = ()
    took: dict[str, list[float]] = field(default_factory=dict)

    async def answer(self) -> None:
        """Every question once, each timed."""
        await self.lock.beat(STATUS_FILTER)  # deadlines run only while somebody listens
        for key, ask in self._questions().items():
            took = self.took.setdefault(key, [])
            if len(took) < 7 or sum(took) < ENOUGH:
                started = time.perf_counter()
                await ask()
                took.append(time.perf_counter() - started)

    def _questions(self) -> dict[str, Callable[[], Awaitable[object]]]:
        pool, key = self.engine.pool, self.engine.key
        return {
            "flat.claim": self._claim,
            "flat.mark": self._mark,
            "flat.apply": self._apply,
            "flat.campaign": lambda: overview.campaign(pool, Settings(), *key),
            "flat.devices": self._page,
            "flat.deep": lambda: self._page(cursor=device_name(self.size * 3 // 4)),
            "flat.status": lambda: self._page(ExecutionStatus.FAILED),
            "flat.rare": lambda: self._page(ExecutionStatus.INSTALLING),
            "flat.conduct": lambda: Upkeep(pool, Settings()).look_after(self.engine.ref),
            "flat.verify": lambda: Counters(pool, Settings()).verify(self.engine.ref),
            "flat.due": lambda: campaigns.due(pool),
        }

    async def _page(self, status: ExecutionStatus | None = None, cursor: str | None = None) -> None:
        await views.devices(self.engine.pool, *self.engine.key, status=status, limit=100, cursor=cursor)

    async def _claim(self) -> None:
        self.claimed = await self.engine.claim()
        assert len(self.claimed) == BATCH

    async def _mark(self) -> None:
        await self.engine.mark(self.claimed)

    async def _apply(self) -> None:
        await self.engine.apply(self.claimed, "SUCCESS")


async def measure(session: Session) -> None:
    """Load the databases, ask in turn, and compare."""
    sizes = [size for size in SIZES if size < session.options.largest] + [session.options.largest]
    async with AsyncExitStack() as databases:
        loaded: list[tuple[Database, Key, int]] = []
        for size in sizes:
            session.say(f"flat: loading {size:,} devices")
            database = await databases.enter_async_context(session.lab.database())
            loaded.append((database, await load.many(database.pool, size), size))
        session.say("flat: asking")
        await _ask_all(session, loaded)
        await memory.at_full_load(session, *loaded[-1])


async def _ask_all(session: Session, loaded: Sequence[tuple[Database, Key, int]]) -> None:
    async with AsyncExitStack() as locks:
        subjects = []
        for database, key, size in loaded:
            engine = Engine(database.pool, key, BATCH)
            # As a worker does with rows that a host wrote, so that counters are there to be read.
            await Counters(database.pool, Settings()).reconcile(engine.ref)
            subjects.append(Subject(engine, size, await locks.enter_async_context(listened_to(database.pool))))
        for _ in range(WARM):
            for subject in subjects:
                await subject.answer()
        for subject in subjects:
            subject.took.clear()
        for _ in range(ROUNDS):
            for subject in subjects:
                await subject.answer()
    _compare(session, subjects)


def _compare(session: Session, subjects: list[Subject]) -> None:
    for key in subjects[0].took:
        medians = [median(subject.took[key]) * 1000 for subject in subjects]
        remark = " / ".join(f"{each:.1f}" for each in medians) + " ms"
        if key == next(iter(subjects[0].took)):
            remark += " with " + " / ".join(f"{subject.size:,}" for subject in subjects) + " devices"
        session.report.add(key, max(medians[1:]) / medians[0], remark)
        session.report.note(key, {f"{subject.size}": subject.took[key] for subject in subjects})


@asynccontextmanager
async def listened_to(pool: Pool) -> AsyncIterator[Lock]:
    """Hold a listener's slot, as a worker that has been subscribed for a day."""
    await identity.require(pool)  # as a worker does before anything else
    async with listeners.acquire_slot(pool, 0) as lock:
        assert lock
        await lock.announce()
        await lock.beat(STATUS_FILTER)
        ago = "now() - interval '1 day'"
        await pool.execute(f"UPDATE rollwave_listener_slots SET listening_since = {ago}, subscribed_at = {ago}")
        yield lock
