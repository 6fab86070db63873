"""How soon it stops: by its guardrail under full load, and when an operator aborts a million waiting devices."""

from __future__ import annotations

import asyncio
import socket
import time
from statistics import quantiles

from bench import load, wire
from bench.fleet import Devices, Heard, Says, devices
from bench.lab import Lab
from bench.load import Key, device_name
from bench.rates import once_in_a_while
from bench.session import Session
from bench.stage import staged
from rollwave.engine import operations
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.store import brakes
from rollwave.store.database import Pool

TRIPS, EVERY = 150, 0.05
"""Campaigns that trip, and the seconds from one to the next."""

LOAD, WAITING, TOP_UP, WARM_UP = 400_000, 1000, 0.025, 1.0
"""Devices of the campaign that keeps the worker busy meanwhile; how many of its reports wait for the worker, and the
seconds after which they are looked at."""

MILLION, ABORTS = 1_000_000, 3
BEFORE_STOP = 5_000
"""Commands that are out before anything is stopped."""

HALTS, HALT_LOAD = 20, 400_000
"""Halts, each while the campaign of so many devices is dispatched at full speed."""

QUIET = 1.5
"""Seconds without a command after which the last one has been heard."""


async def trip(session: Session) -> None:
    """From the report that crosses the threshold, handed to the socket, to ABORTED committed."""
    session.say(f"stop: {TRIPS} campaigns trip while a large one is dispatched and reports")
    async with session.lab.database() as database:
        small = await load.campaigns(database.pool, 20, each=TRIPS, sent=True, status="RUNNING")
        [large] = await load.campaigns(database.pool, LOAD)
        async with staged(session.lab, database) as stage, devices(stage.port) as fleet:
            await stage.looked_at()
            await operations.start_campaign(stage.pool, *large, actor="bench")
            await fleet.have_heard(BEFORE_STOP, large.campaign)
            with wire.connected(stage.port, "bench-reports") as line:
                busy = _Busy(stage.pool, large, line)
                await busy.keep(WARM_UP)
                started, before = time.monotonic(), await busy.progress()
                handed = {}
                for key in small:
                    handed[key.campaign] = busy.say(Says(key.tenant, device_name(0), key.campaign, "FAILED"))
                    await busy.keep(EVERY)
                took, after = time.monotonic() - started, await busy.progress()
            all_over = "SELECT count(*) = $1 FROM ota_campaigns WHERE status = 'ABORTED'"
            await once_in_a_while(stage.pool, all_over, TRIPS)
            rows = await stage.pool.fetch(
                "SELECT campaign_id, EXTRACT(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at"
                " FROM ota_campaign_history WHERE event = 'aborted'"
            )
    assert after[0] < LOAD, "the load ended too early"
    waits = [(row["at"] - handed[row["campaign_id"]]) * 1000 for row in rows]
    cuts = quantiles(waits, n=100)
    sent, succeeded = ((b - a) / took for a, b in zip(before, after, strict=True))
    session.report.add("trip.p50", cuts[49])
    session.report.add("trip.p99", cuts[98], f"meanwhile {sent:,.0f} dispatched and {succeeded:,.0f} taken in a second")
    session.report.note("trip.p99", sorted(waits))


class _Busy:
    """Has a campaign's devices report so that a batch always waits for the worker, and no more than that."""

    def __init__(self, pool: Pool, key: Key, line: socket.socket) -> None:
        self._pool = pool
        self._key = key
        self._line = line
        self._number = self._said = 0

    def say(self, *reports: Says) -> float:
        """Hand reports to the socket; returns when (time of day)."""
        frames = []
        for each in reports:
            payload = encode_report(each.campaign, each.status)
            frames.append(wire.publish_frame(self._number, status_topic(each.tenant, each.device), payload))
            self._number += 1
        now = time.time()
        self._line.sendall(b"".join(frames))
        return now

    async def keep(self, seconds: float) -> None:
        """Report on, for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            sent, taken_in = await self.progress()
            first, self._said = self._said, max(self._said, min(sent, taken_in + WAITING))
            self.say(*(Says(self._key.tenant, device_name(n), self._key.campaign) for n in range(first, self._said)))
            await asyncio.sleep(min(left, TOP_UP))

    async def progress(self) -> tuple[int, int]:
        """Devices dispatched, and taken in, so far."""
        row = await self._pool.fetchrow(
            "SELECT sent, succeeded FROM ota_campaigns WHERE tenant_id = $1 AND id = $2", *self._key
        )
        assert row
        return row["sent"], row["succeeded"]


async def abort(session: Session) -> None:
    """An operator aborts a campaign of a million devices that is being dispatched at full speed."""
    session.say(f"abort: loading {MILLION:,} devices")
    async with session.lab.database() as original:
        key = await load.many(original.pool, MILLION, kind="pending", status="CREATED")
        await original.pool.close()  # nobody may be connected to what is copied
        for number in range(ABORTS):
            session.say(f"abort: {number + 1} of {ABORTS}")
            await _abort(session, original.name, key, to_the_end=number == ABORTS - 1)


async def _abort(session: Session, template: str, key: Key, *, to_the_end: bool) -> None:
    lab: Lab = session.lab
    async with lab.database(template) as database, staged(lab, database) as stage, devices(stage.port) as fleet:
        await operations.start_campaign(stage.pool, *key, actor="bench")
        await fleet.have_heard(BEFORE_STOP, key.campaign)
        asked = time.time()
        await operations.abort_campaign(stage.pool, *key, actor="bench")
        done = time.time()
        last = (await _last(fleet, key, done)).last
        session.report.add("abort.call", (done - asked) * 1000)
        session.report.add("abort.last", max(0.0, last - asked) * 1000)
        if to_the_end:
            left = "SELECT NOT EXISTS (SELECT FROM ota_device_status WHERE status = 'PENDING')"
            await once_in_a_while(stage.pool, left, every=0.5)
            session.report.add("abort.skipped", time.time() - done)


async def halt(session: Session) -> None:
    """An operator halts a tenant, again and again, whose campaign is being dispatched at full speed."""
    session.say(f"halt: loading {HALT_LOAD:,} devices")
    async with session.lab.database() as database:
        [key] = await load.campaigns(database.pool, HALT_LOAD)
        async with staged(session.lab, database) as stage, devices(stage.port) as fleet:
            await operations.start_campaign(stage.pool, *key, actor="bench")
            session.say(f"halt: {HALTS} times")
            heard = 0
            for _ in range(HALTS):
                await fleet.have_heard(heard + BEFORE_STOP, key.campaign)
                asked = time.time()
                await brakes.halt(stage.pool, key.tenant, actor="bench", reason="measured")
                found = await _last(fleet, key, time.time())
                session.report.add("halt.last", max(0.0, found.last - asked) * 1000)
                heard = found.number
                await brakes.lift(stage.pool, key.tenant, actor="bench")
    assert heard < HALT_LOAD, "the load ended too early"


async def _last(fleet: Devices, key: Key, done: float) -> Heard:
    """What the devices have heard once they hear nothing more. ``done``: when the stop was committed."""
    heard = (await fleet.heard())[key.campaign]
    while time.time() < max(heard.last, done) + QUIET:
        await asyncio.sleep(QUIET / 5)
        heard = (await fleet.heard())[key.campaign]
    return heard
