"""Campaigns most of whose devices may not be sent to now: does a claim, or the reason, cost more with more of them?"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

from bench import documents
from bench.engine import Engine
from bench.flat import BATCH, ROUNDS, WARM, listened_to
from bench.load import device_name
from bench.session import Session
from rollwave.engine import explain
from rollwave.mqtt.topics import STATUS_FILTER
from rollwave.settings import Settings
from rollwave.store.listeners import Lock

SIZES = (100_000, 1_000_000)
"""Devices of the campaigns that the largest one is compared with. A tenth of the smallest is enough for every claim."""


@dataclass(slots=True)
class _Subject:
    """A database with a campaign of one size, and the seconds that each question took there."""

    engine: Engine
    size: int
    lock: Lock
    number: int = 0
    took: dict[str, list[float]] = field(default_factory=dict)

    async def answer(self) -> None:
        await self.lock.beat(STATUS_FILTER)
        self.number += 7919
        for key, ask in self._questions().items():
            started = time.perf_counter()
            await ask()
            self.took.setdefault(key, []).append(time.perf_counter() - started)

    def _questions(self) -> dict[str, Callable[[], Awaitable[object]]]:
        pool, key, settings = self.engine.pool, self.engine.key, Settings()
        device = device_name(self.number % self.size)
        return {
            "windows.claim": self._claim,
            "waiting": lambda: explain.waiting_devices(pool, settings, *key),
            "explain": lambda: explain.explain_device(pool, settings, *key, device),
        }

    async def _claim(self) -> None:
        assert len(await self.engine.claim()) == BATCH


async def measure(session: Session) -> None:
    """Load the databases, ask in turn, and compare."""
    sizes = [size for size in SIZES if size < session.options.largest] + [session.options.largest]
    async with AsyncExitStack() as stack:
        engines = []
        for size in sizes:
            session.say(f"waiting: loading {size:,} devices, nine tenths of them outside their window")
            database = await stack.enter_async_context(session.lab.database())
            key = await documents.many(database.pool, size, documents.mostly_closed())
            engines.append((Engine(database.pool, key, BATCH), size))
        subjects = [  # once all are loaded: a slot's connection that nobody uses for so long is closed
            _Subject(engine, size, await stack.enter_async_context(listened_to(engine.pool)))
            for engine, size in engines
        ]
        session.say("waiting: asking")
        for _ in range(WARM):
            for subject in subjects:
                await subject.answer()
        for subject in subjects:
            subject.took.clear()
        for _ in range(ROUNDS):
            for subject in subjects:
                await subject.answer()
    _report(session, subjects)


def _report(session: Session, subjects: Sequence[_Subject]) -> None:
    sizes = " / ".join(f"{subject.size:,}" for subject in subjects)
    for key in subjects[0].took:
        medians = [median(subject.took[key]) * 1000 for subject in subjects]
        remark = " / ".join(f"{each:.1f}" for each in medians) + f" ms with {sizes} devices"
        figure = medians[-1] if key != "windows.claim" else max(medians[1:], default=medians[0]) / medians[0]
        session.report.add(key, figure, remark)
