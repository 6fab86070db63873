"""The limits: what PostgreSQL and the broker do when nothing but the least is asked of them.

Hand-written, without error handling, leases, guards, tenants or rules. Rollwave is measured against these.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from bench import wire
from bench.fleet import Says, devices, report
from bench.lab import Lab, settled
from bench.load import TENANT, campaigns, command_body, device_name
from rollwave.mqtt.topics import command_topic
from rollwave.store.database import Connection, Pool

BATCH = 1000

_CLAIM = """
WITH picked AS (
    SELECT device_id FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE ota_device_status d SET attempt = 1, due_at = now() + interval '30 s'
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = ANY (ARRAY(SELECT device_id FROM picked))
RETURNING d.device_id"""

_MARK = """
UPDATE ota_device_status
SET status = 'DOWNLOADING', sent_attempt = 1, started_at = now(), due_at = now() + interval '30 min'
WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = ANY ($3::text[])"""

_APPLY = """
WITH moved AS (
    UPDATE ota_device_status d
    SET status = r.status, progress_pct = 100, completed_at = now(), due_at = NULL
    FROM unnest($3::text[], $4::text[]) AS r (device_id, status)
    WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = r.device_id
      AND ota_status_rank(d.status) < ota_status_rank(r.status)
    RETURNING d.status
)
UPDATE ota_campaigns SET succeeded = succeeded + (SELECT count(*) FROM moved) WHERE tenant_id = $1 AND id = $2"""


@asynccontextmanager
async def _prepared(lab: Lab, devices: int, *, sent: bool = False) -> AsyncIterator[tuple[Pool, int]]:
    """A campaign that PostgreSQL has analyzed."""
    async with lab.database() as database:
        [key] = await campaigns(database.pool, devices, sent=sent)
        await database.pool.execute("ANALYZE")
        await settled(database.pool)
        yield database.pool, key.campaign


async def claim(lab: Lab, number: int) -> float:
    """Devices claimed a second, in SQL alone."""
    async with _prepared(lab, number) as (pool, campaign), pool.acquire() as connection:
        started = time.perf_counter()
        while await connection.fetch(_CLAIM, TENANT, campaign, BATCH):
            pass
        return number / (time.perf_counter() - started)


async def apply(lab: Lab, number: int) -> float:
    """Reports applied a second, in SQL alone."""
    async with _prepared(lab, number, sent=True) as (pool, campaign), pool.acquire() as connection:
        started = time.perf_counter()
        for first in range(0, number, BATCH):
            names = [device_name(n) for n in range(first, min(first + BATCH, number))]
            await connection.execute(_APPLY, TENANT, campaign, names, ["SUCCESS"] * len(names))
        return number / (time.perf_counter() - started)


async def publish(lab: Lab, broker: str, number: int) -> float:
    """QoS 1 frames a second over one socket, until the last one is acknowledged and has reached a subscriber."""
    frames = _commands([device_name(n) for n in range(number)], command_body(1))
    with lab.broker(broker) as at:
        async with devices(at.port) as fleet:
            with wire.connected(at.port, "bench-engine") as line:
                handed = await asyncio.to_thread(wire.flood, line, frames)
            arrived = await fleet.have_heard(number, 1)
    return number / (max(arrived.last, handed[-1]) - handed[0])


async def dispatch(lab: Lab, broker: str, number: int) -> float:
    """Claim, publish, mark, chained: a batch is claimed and sent while the one before it is answered for and marked."""
    async with AsyncExitStack() as stack:
        pool, campaign = await stack.enter_async_context(_prepared(lab, number))
        at = stack.enter_context(lab.broker(broker))
        fleet = await stack.enter_async_context(devices(at.port))
        line = await stack.enter_async_context(_line(at.port))
        names = [device_name(n) for n in range(number)]
        frames = dict(zip(names, _commands(names, command_body(campaign)), strict=True))
        started = time.perf_counter()
        on_its_way: asyncio.Task[None] | None = None
        sent = 0
        while chosen := [row[0] for row in await pool.fetch(_CLAIM, TENANT, campaign, BATCH)]:
            line.send([frames[name] for name in chosen])
            sent += len(chosen)
            if on_its_way:
                await on_its_way
            on_its_way = asyncio.create_task(_mark(pool, campaign, chosen, line, sent))
        assert on_its_way
        await on_its_way
        took = time.perf_counter() - started
        await fleet.have_heard(number, campaign)
    return number / took


async def ingest(lab: Lab, broker: str, number: int) -> float:
    """Receive, apply, acknowledge, chained: first report received to last one committed."""
    async with AsyncExitStack() as stack:
        pool, campaign = await stack.enter_async_context(_prepared(lab, number, sent=True))
        connection = await stack.enter_async_context(pool.acquire())
        at = stack.enter_context(lab.broker(broker))
        line = await stack.enter_async_context(_line(at.port))
        await line.subscribe("tenant/+/device/+/ota/status")
        says = [Says(TENANT, device_name(n), campaign) for n in range(number)]
        sender = asyncio.create_task(report(at.port, says))
        started, taken = 0.0, 0
        while taken < number:
            batch = await line.messages(BATCH)
            started = started or time.perf_counter()
            await _take_in(connection, campaign, batch)
            taken += len(batch)
            line.send([wire.puback_frame(identifier) for _, identifier, _ in batch])
        took = time.perf_counter() - started
        await sender
    return number / took


async def _take_in(connection: Connection, campaign: int, batch: Sequence[tuple[str, bytes, memoryview]]) -> None:
    said = {topic.split("/")[3]: json.loads(bytes(payload))["status"] for topic, _, payload in batch}
    await connection.execute(_APPLY, TENANT, campaign, list(said), list(said.values()))


async def _mark(pool: Pool, campaign: int, chosen: Sequence[str], line: _Line, sent: int) -> None:
    await line.acknowledged(sent)
    await pool.execute(_MARK, TENANT, campaign, chosen)


def _commands(devices: Sequence[str], body: bytes) -> list[bytes]:
    return [wire.publish_frame(n, command_topic(TENANT, device), body, attempt=1) for n, device in enumerate(devices)]


class _Line(asyncio.Protocol):
    """One connection to the broker."""

    def __init__(self) -> None:
        self._cutter = wire.Frames()
        self._received: list[tuple[str, bytes, memoryview]] = []
        self._pubacks = 0
        self._ready = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(wire.connect_frame("bench-engine"))

    def data_received(self, data: bytes) -> None:
        for kind, body in self._cutter.feed(data):
            if kind & 0xF0 == wire.PUBACK:
                self._pubacks += 1
            elif kind & 0xF0 == wire.PUBLISH:
                self._received.append(wire.topic_of(body))
        self._ready.set()

    def send(self, frames: Sequence[bytes]) -> None:
        assert self._transport
        self._transport.write(b"".join(frames))

    async def next(self) -> None:
        """Wait until something came."""
        self._ready.clear()
        await self._ready.wait()

    async def subscribe(self, topic_filter: str) -> None:
        self.send([wire.subscribe_frame(topic_filter)])
        await self.next()

    async def acknowledged(self, number: int) -> None:
        while self._pubacks < number:
            await self.next()

    async def messages(self, most: int) -> list[tuple[str, bytes, memoryview]]:
        while not self._received:
            await self.next()
        taken, self._received = self._received[:most], self._received[most:]
        return taken

    def close(self) -> None:
        assert self._transport
        self._transport.close()


@asynccontextmanager
async def _line(port: int) -> AsyncIterator[_Line]:
    _, line = await asyncio.get_running_loop().create_connection(_Line, "127.0.0.1", port)
    await line.next()  # CONNACK
    try:
        yield line
    finally:
        line.close()
