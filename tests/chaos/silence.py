"""Nothing is sent while no listener is subscribed: the slots' table beside what the workers publish.

Times are of this process's monotonic clock. A silence is certain from the first look that finds no listener until the
last look before a listener said that it is subscribed, which changes ``alive_at``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from rollwave.engine.dispatch.isolate import PROBE
from rollwave.store.listeners import TAKEOVER_SECONDS
from rollwave.store.outage import CONNECTION_TROUBLE
from tests.engine import connect
from tests.proxy import PUBLISH, Do, Packet
from tests.support import end

LOOK_EVERY = 0.05

ON_THE_WAY = 4.0
"""Seconds beside its lease after which a command that was claimed before a silence has reached the proxy, surely."""

LOOK = f"""
    SELECT (SELECT alive_at::text FROM rollwave_listener_slots WHERE slot = 0) AS alive_at,
           NOT EXISTS (SELECT FROM rollwave_listener_slots
                       WHERE slot = 0 AND (subscribed_at IS NOT NULL OR alive_at >= coming_at)
                         AND alive_at > clock_timestamp() - interval '{TAKEOVER_SECONDS:.0f} seconds') AS silent
"""
NEVER = (None, "-infinity")


@dataclass
class Silence:
    """Nobody listened from ``begin`` to ``end``, and whoever did before said so last at ``alive_at``."""

    alive_at: str | None
    begin: float
    end: float


@dataclass
class Watch:
    """What was seen of listeners, and when each device's topic was published to first."""

    lease: float
    silences: list[Silence] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)

    def note(self, packet: Packet) -> Do | None:
        """A rule for the proxy that lets everything pass and remembers it."""
        if packet.kind == PUBLISH and packet.to_broker and packet.topics[0].endswith("/ota"):
            self.first.setdefault(packet.topics[0], time.monotonic())
        return None

    def violations(self) -> list[str]:
        """Devices that were sent their first command while nobody listened.

        Later ones are left out: an answer to a device that asks may go out while a listener is about to subscribe.
        """
        return [
            f"{topic} was sent to {at - silence.begin:.1f} s after the last listener was subscribed"
            for topic, at in self.first.items()
            if f"/{PROBE}/" not in topic
            for silence in self.silences
            if silence.begin + self._slack(silence) < at < silence.end
        ]

    def _slack(self, silence: Silence) -> float:
        return 0.0 if silence.alive_at in NEVER else self.lease + ON_THE_WAY

    async def keep_looking(self, database: str) -> None:
        """Look whenever the database can be reached."""
        while True:
            with suppress(*CONNECTION_TROUBLE):
                async with connect(database) as connection:
                    while True:
                        asked = time.monotonic()
                        row = await connection.fetchrow(LOOK)
                        assert row is not None
                        self._add(row["alive_at"], asked, silent=row["silent"])
                        await asyncio.sleep(LOOK_EVERY)
            await asyncio.sleep(LOOK_EVERY)

    def _add(self, alive_at: str | None, asked: float, *, silent: bool) -> None:
        last = self.silences[-1] if self.silences else None
        if not silent:
            return
        if last is not None and (last.alive_at == alive_at or (last.alive_at in NEVER and alive_at in NEVER)):
            last.end = asked
        else:
            self.silences.append(Silence(alive_at, begin=time.monotonic(), end=asked))


@asynccontextmanager
async def watching(database: str, lease: float) -> AsyncIterator[Watch]:
    """Watch for the block."""
    watch = Watch(lease)
    looking = asyncio.create_task(watch.keep_looking(database))
    try:
        yield watch
    finally:
        await end(looking)
