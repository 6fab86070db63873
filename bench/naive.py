"""The design that comes to mind first, for comparison: row by row, a connection for each command, counters recounted.

It is spared what would slow it down further: no wait between ticks, and frames made by hand.
"""

from __future__ import annotations

import asyncio
import json
import time

from bench import wire
from bench.fleet import Says, report
from bench.lab import Lab
from bench.load import TENANT, campaigns, command_body, device_name
from rollwave.mqtt.topics import command_topic
from rollwave.store.database import Connection, Pool

TICK = 10
"""Devices a tick, the default of ``rollout_rate``."""

_RECOUNT = """
UPDATE ota_campaigns SET
    succeeded = (SELECT count(*) FROM ota_device_status WHERE campaign_id = $1 AND status = 'SUCCESS'),
    failed = (SELECT count(*) FROM ota_device_status WHERE campaign_id = $1 AND status = 'FAILED')
WHERE id = $1"""


async def dispatch(lab: Lab, broker: str, devices: int, number: int) -> float:
    """Devices a second, measured over the first ``number``."""
    async with lab.database() as database, database.pool.acquire() as connection:
        campaign = await _prepared(database.pool, devices)
        with lab.broker(broker) as at:
            started = time.perf_counter()
            for _ in range(0, number, TICK):
                await _tick(connection, campaign, at.port)
            return number / (time.perf_counter() - started)


async def ingest(lab: Lab, broker: str, devices: int, number: int) -> float:
    """Reports a second, measured over the first ``number``."""
    async with lab.database() as database, database.pool.acquire() as connection:
        campaign = await _prepared(database.pool, devices, sent=True)
        with lab.broker(broker) as at, wire.connected(at.port, "bench-naive") as line:
            line.sendall(wire.subscribe_frame("tenant/+/device/+/ota/status"))
            says = [Says(TENANT, device_name(n), campaign) for n in range(number)]
            sender = asyncio.create_task(report(at.port, says))
            cutter, taken, started = wire.Frames(), 0, 0.0
            while taken < number:
                data = await asyncio.to_thread(line.recv, 1 << 16)
                started = started or time.perf_counter()
                for kind, body in cutter.feed(data):
                    if kind & 0xF0 == wire.PUBLISH:
                        line.sendall(await _take_in(connection, campaign, body))
                        taken += 1
            took = time.perf_counter() - started
            await sender
    return number / took


async def _prepared(pool: Pool, devices: int, *, sent: bool = False) -> int:
    [key] = await campaigns(pool, devices, sent=sent)
    await pool.execute("ANALYZE")
    return key.campaign


async def _tick(connection: Connection, campaign: int, port: int) -> None:
    waiting = await connection.fetch(
        "SELECT device_id FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING'"
        " ORDER BY id LIMIT $3",
        *(TENANT, campaign, TICK),
    )
    for row in waiting:
        frame = wire.publish_frame(0, command_topic(TENANT, row["device_id"]), command_body(campaign))
        with wire.connected(port, f"bench-{row['device_id']}") as line:
            line.sendall(frame)
            assert line.recv(64)[0] == wire.PUBACK
        await _set(connection, campaign, row["device_id"], "DOWNLOADING")
    await connection.execute(_RECOUNT, campaign)


async def _take_in(connection: Connection, campaign: int, body: memoryview) -> bytes:
    topic, identifier, payload = wire.topic_of(body)
    await _set(connection, campaign, topic.split("/")[3], json.loads(bytes(payload))["status"])
    await connection.execute(_RECOUNT, campaign)
    return wire.puback_frame(identifier)


async def _set(connection: Connection, campaign: int, device: str, status: str) -> None:
    await connection.execute(
        "UPDATE ota_device_status SET status = $4 WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3",
        *(TENANT, campaign, device, status),
    )
