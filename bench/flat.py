"""Does it cost more the larger the campaign is? The same statements, in turn, on databases of three sizes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median

from bench import load
from bench.load import Key, device_name
from bench.plan import SIZES
from bench.session import Session
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine.conductor import Conductor
from rollwave.engine.intake import Intake
from rollwave.mqtt.topics import STATUS_FILTER
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, read_models, slots
from rollwave.store.campaigns import Due
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed, Times
from rollwave.store.slots import Lock
from tests.engine import said

BATCH = 200
"""Small enough for the smallest campaign to have one for every round."""

WARM, ROUNDS = 3, 30

ENOUGH = 8.0
"""Seconds that one question may take in all on one database, once it has been answered seven times."""


@dataclass(slots=True)
class Subject:
    """A database of one size, and how long each question took there."""

    pool: Pool
    key: Key
    size: int
    lock: Lock
    claimed: tuple[Claimed, ...] = ()
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
        due = Due(TenantId(self.key.tenant), CampaignId(self.key.campaign), CampaignStatus.RUNNING)
        return {
            "flat.claim": self._claim,
            "flat.mark": self._mark,
            "flat.apply": self._apply,
            "flat.campaign": lambda: read_models.campaign(self.pool, *self.key),
            "flat.devices": self._page,
            "flat.deep": lambda: self._page(cursor=device_name(self.size * 3 // 4)),
            "flat.status": lambda: self._page(ExecutionStatus.FAILED),
            "flat.rare": lambda: self._page(ExecutionStatus.INSTALLING),
            "flat.conduct": lambda: Conductor(self.pool, Settings()).conduct(due),
            "flat.due": lambda: campaigns.due(self.pool),
        }

    async def _page(self, status: ExecutionStatus | None = None, cursor: str | None = None) -> None:
        await read_models.devices(self.pool, *self.key, status=status, limit=100, cursor=cursor)

    async def _claim(self) -> None:
        async with tenant_transaction(self.pool, self.key.tenant) as connection:
            campaign = await campaigns.lock(connection, *self.key)
            claim = await executions.claim(connection, campaign, tokens=BATCH, fresh=BATCH, lease=30.0, in_all=86_400.0)
            await campaigns.spend(
                connection, campaign, opens_window=False, used=BATCH, first_time=claim.fresh, command="{}"
            )
        self.claimed = claim.commands

    async def _mark(self) -> None:
        times = Times(1800.0, 1800.0, 86_400.0)
        async with tenant_transaction(self.pool, self.key.tenant, generic_plans=True) as connection:
            await executions.mark_sent(connection, *self.key, self.claimed, times)

    async def _apply(self) -> None:
        reports = [said(each.device_id, self.key.campaign, "SUCCESS", tenant=self.key.tenant) for each in self.claimed]
        await Intake(self.pool, Settings()).take_in(reports)


async def measure(session: Session) -> None:
    """Load the databases, ask in turn, and compare."""
    sizes = [size for size in SIZES.values() if size < session.options.largest] + [session.options.largest]
    async with AsyncExitStack() as stack:
        loaded: list[tuple[Pool, Key, int]] = []
        for size in sizes:
            session.say(f"flat: loading {size:,} devices")
            database = await stack.enter_async_context(session.lab.database())
            key = await load.many(database.pool, size)
            # As a worker does with rows that a host wrote, so that counters are there to be read.
            due = Due(TenantId(key.tenant), CampaignId(key.campaign), CampaignStatus.RUNNING)
            await Conductor(database.pool, Settings()).reconcile(due)
            loaded.append((database.pool, key, size))
        session.say("flat: asking")
        subjects = [Subject(*each, await stack.enter_async_context(_listened_to(each[0]))) for each in loaded]
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
    smallest, *_, largest = subjects
    for key in smallest.took:
        medians = [median(subject.took[key]) * 1000 for subject in subjects]
        remark = " / ".join(f"{each:.1f}" for each in medians) + " ms"
        session.report.add(key, median(largest.took[key]) / median(smallest.took[key]), remark)
        session.report.note(key, {f"{subject.size}": subject.took[key] for subject in subjects})


@asynccontextmanager
async def _listened_to(pool: Pool) -> AsyncIterator[Lock]:
    async with slots.hold(pool, 0) as lock:
        assert lock
        await lock.announce()
        await lock.beat(STATUS_FILTER)
        ago = "now() - interval '1 day'"
        await pool.execute(f"UPDATE rollwave_listener_slots SET listening_since = {ago}, subscribed_at = {ago}")
        yield lock
