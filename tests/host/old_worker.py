"""The host's own OTA worker, from before Rollwave: ``python -m tests.host.old_worker URL BROKER``.

It follows the contract as such workers usually do: it publishes first and writes ``DOWNLOADING`` afterwards, over
whatever the device has reported in between. Ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session

INTERVAL = 0.2
"""Seconds between two ticks."""

_TERMINAL = {"SUCCESS", "FAILED"}


async def main(database: str, broker: str) -> None:
    async with (
        asyncpg.create_pool(database, min_size=1, max_size=4) as pool,
        Session.connect(Broker.from_url(broker)) as session,
    ):
        await session.subscribe("tenant/+/device/+/ota/status")
        working = asyncio.gather(_dispatch(pool, session), _listen(pool, session))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        print("old worker is listening", flush=True)
        with suppress(asyncio.CancelledError):
            await working


@asynccontextmanager
async def _as_tenant(pool: Any, tenant: str) -> AsyncIterator[Any]:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE pulse_app")
        await connection.execute("SELECT set_config('app.tenant_id', $1, true)", tenant)
        yield connection


async def _dispatch(pool: Any, session: Session) -> None:
    while True:
        for tenant in ("north", "south"):
            async with _as_tenant(pool, tenant) as connection:
                campaigns = await connection.fetch(
                    "SELECT c.*, f.version, f.file_url, f.checksum_sha256 FROM ota_campaigns c"
                    " JOIN firmware_versions f ON f.id = c.firmware_version_id"
                    " WHERE c.tenant_id = $1 AND c.status = 'RUNNING'",
                    tenant,
                )
            for campaign in campaigns:
                await _send(pool, session, tenant, campaign)
        await asyncio.sleep(INTERVAL)


async def _send(pool: Any, session: Session, tenant: str, campaign: Any) -> None:
    async with _as_tenant(pool, tenant) as connection:
        waiting = await connection.fetch(
            "SELECT device_id FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING'"
            " ORDER BY id LIMIT $3",
            tenant,
            campaign["id"],
            campaign["rollout_rate"],
        )
    command = {
        "campaign_id": campaign["id"],
        "firmware_url": campaign["file_url"],
        "version": campaign["version"],
        "checksum": campaign["checksum_sha256"] or "",
        "action": "update",
    }
    for row in waiting:
        receipt = await session.publish(f"tenant/{tenant}/device/{row['device_id']}/ota", json.dumps(command).encode())
        await receipt.acknowledged()
    async with _as_tenant(pool, tenant) as connection:
        # If the device has already reported SUCCESS, this overwrites it.
        await connection.executemany(
            "UPDATE ota_device_status SET status = 'DOWNLOADING', started_at = now() AT TIME ZONE 'UTC'"
            " WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3",
            [(tenant, campaign["id"], row["device_id"]) for row in waiting],
        )
        left = await connection.fetchval(
            "SELECT count(*) FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2"
            " AND status IN ('PENDING', 'DOWNLOADING', 'INSTALLING')",
            tenant,
            campaign["id"],
        )
        if not left:
            await connection.execute(
                "UPDATE ota_campaigns SET status = 'COMPLETED', completed_at = now() AT TIME ZONE 'UTC'"
                " WHERE tenant_id = $1 AND id = $2",
                tenant,
                campaign["id"],
            )


async def _listen(pool: Any, session: Session) -> None:
    async for message in session.messages():
        _, tenant, _, device, *_ = message.topic.split("/")
        report = json.loads(message.payload)
        status = report["status"].upper()
        async with _as_tenant(pool, tenant) as connection:
            await connection.execute(
                "UPDATE ota_device_status SET status = $4, progress_pct = $5, error_message = $6,"
                " completed_at = CASE WHEN $7 THEN now() AT TIME ZONE 'UTC' END"
                " WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3",
                tenant,
                report["campaign_id"],
                device,
                status,
                100 if status == "SUCCESS" else report.get("progress", 0),
                report.get("error"),
                status in _TERMINAL,
            )
            if status in _TERMINAL:
                await connection.execute(
                    "UPDATE ota_campaigns SET succeeded = succeeded + $3, failed = failed + $4"
                    " WHERE tenant_id = $1 AND id = $2",
                    tenant,
                    report["campaign_id"],
                    int(status == "SUCCESS"),
                    int(status == "FAILED"),
                )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
