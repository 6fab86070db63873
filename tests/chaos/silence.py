"""Checks that nothing is sent while no listener is subscribed: compares the slots table with published commands.

Times are of this process's monotonic clock. A silence is certain from the first check that finds no listener, until
the last check before a listener writes ``alive_at`` again.
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
"""Seconds after the end of its lease by which a command that was claimed before a silence has reached the proxy."""

SUBSCRIBED_LISTENERS = f"""
    SELECT (SELECT alive_at::text FROM rollwave_listener_slots WHERE slot = 0) AS alive_at,
           NOT EXISTS (SELECT FROM rollwave_listener_slots
                       WHERE slot = 0 AND (subscribed_at IS NOT NULL OR alive_at >= coming_at)
                         AND alive_at > clock_timestamp() - interval '{TAKEOVER_SECONDS:.0f} seconds') AS silent
"""
NEVER = (None, "-infinity")


@dataclass
class Silence:
    """A period from ``begin`` to ``end`` without a listener. The last listener before it wrote ``alive_at``."""

    alive_at: str | None
    begin: float
    end: float


@dataclass
class Watch:
    """The silences seen, and the time of the first command on each device's topic."""

    lease: float
    silences: list[Silence] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)

    def note(self, packet: Packet) -> Do | None:
        """A rule for the proxy that records each packet and lets it pass."""
        if packet.kind == PUBLISH and packet.to_broker and packet.topics[0].endswith("/ota"):
            self.first.setdefault(packet.topics[0], time.monotonic())
        return None

    def violations(self) -> list[str]:
        """Devices that were sent their first command during a silence.

        Later commands are left out: a device that asks may be answered while a listener is about to subscribe.
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
        """Check as often as the database is reachable."""
        while True:
            with suppress(*CONNECTION_TROUBLE):
                async with connect(database) as connection:
                    while True:
                        asked = time.monotonic()
                        row = await connection.fetchrow(SUBSCRIBED_LISTENERS)
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
    """Watch during the block."""
    watch = Watch(lease)
    looking = asyncio.create_task(watch.keep_looking(database))
    try:
        yield watch
    finally:
        await end(looking)
