"""Rollwave itself: real `rollwave worker` processes, measured at the database and at the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import quantiles

from bench.fleet import TENANT, counted, counting, device_name, report
from bench.lab import Lab
from bench.machine import Usage, cpu_of_children, usage
from rollwave.store.database import Pool
from tests.support import eventually, rollwave_running

PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Rate:
    """One measured run. ``seconds`` is from the first to the last commit, by the database's clock."""

    per_second: float
    seconds: float
    devices: int
    worker: Usage
    postgres_cpu: float
    at_broker: float | None
    """Commands a second as they reached a subscriber."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a report's hand-over to the socket until it is committed, at ``per_second`` reports offered."""

    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class _Stage:
    """One campaign, a broker, and a worker that is subscribed to it."""

    pool: Pool
    campaign: int
    port: int
    worker: int
    postgres: int

    def used(self) -> tuple[Usage, float]:
        return usage(self.worker), cpu_of_children(self.postgres)

    def rate(self, number: int, seconds: float, before: tuple[Usage, float], at_broker: float | None = None) -> Rate:
        worker, postgres_cpu = self.used()
        used = worker.since(before[0]), postgres_cpu - before[1]
        return Rate(number / seconds, seconds, number, *used, at_broker)


@asynccontextmanager
async def _stage(lab: Lab, broker: str, devices: int, *, sent: bool = False) -> AsyncIterator[_Stage]:
    async with lab.campaign(devices, sent=sent) as (url, pool, campaign):
        with lab.broker(broker) as port:
            settings = {"DATABASE_URL": url, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{port}"}
            log = lab.folder / "worker.log"
            log.unlink(missing_ok=True)
            async with rollwave_running("worker", log=log, env=settings) as running:
                await eventually(lambda: "ota_status_listener_subscribed" in running.output(), timeout=30)
                assert lab.postgres.pid
                yield _Stage(pool, campaign, port, running.process.pid, lab.postgres.pid)


async def dispatch(lab: Lab, broker: str, devices: int) -> Rate:
    """Start a campaign with no pace; from its first claim to the last device marked DOWNLOADING."""
    async with _stage(lab, broker, devices) as stage, counting(stage.port, devices) as counter:
        before = stage.used()
        await _start(stage)
        await _until_all(stage, "DOWNLOADING", devices)
        seconds = await stage.pool.fetchval(
            "SELECT EXTRACT(epoch FROM max(pg_xact_commit_timestamp(d.xmin))"
            " - (SELECT started_at FROM ota_campaigns))::float8 FROM ota_device_status d"
        )
        commands = await counted(counter)
        return stage.rate(devices, seconds, before, devices / (commands.last - commands.first))


async def ingest(lab: Lab, broker: str, devices: int) -> Rate:
    """Every device reports SUCCESS, as fast as the broker takes it: the reports committed after the first commit."""
    async with _stage(lab, broker, devices, sent=True) as stage:
        await _start(stage)
        before = stage.used()
        await report(stage.port, stage.campaign, devices)
        await _until_all(stage, "SUCCESS", devices)
        committed = (await _committed(stage)).values()
        first = min(committed)
        return stage.rate(sum(at > first for at in committed), max(committed) - first, before)


async def latency(lab: Lab, broker: str, devices: int, per_second: float) -> Latency:
    """From publish to commit, with reports offered at a steady pace."""
    async with _stage(lab, broker, devices, sent=True) as stage:
        await _start(stage)
        handed = await report(stage.port, stage.campaign, devices, per_second)
        await _until_all(stage, "SUCCESS", devices)
        committed = await _committed(stage)
    waits = sorted(committed[device_name(n)] - sent for n, sent in enumerate(handed))
    cuts = quantiles(waits, n=100)
    return Latency(per_second, cuts[49], cuts[98])


async def _start(stage: _Stage) -> None:
    """Start the campaign; return once the worker has looked at it."""
    await stage.pool.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
    looked_at = "SELECT reconciled_at IS NOT NULL FROM ota_campaigns"
    await eventually(lambda: stage.pool.fetchval(looked_at), timeout=30, what="looked at")


async def _until_all(stage: _Stage, status: str, number: int) -> None:
    """Look once in a while: counting rows must not slow down what is measured."""

    async def all_are() -> bool:
        await asyncio.sleep(0.2)
        found: int = await stage.pool.fetchval(_COUNT[status], TENANT, stage.campaign)
        return found >= number

    await eventually(all_are, timeout=PATIENCE, what=f"{number} devices {status}")


_COUNT = {
    "DOWNLOADING": "SELECT count(*) FROM ota_device_status"
    " WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'DOWNLOADING'",
    "SUCCESS": "SELECT succeeded FROM ota_campaigns WHERE tenant_id = $1 AND id = $2",
}


async def _committed(stage: _Stage) -> dict[str, float]:
    """When each device's row was last committed, as PostgreSQL stamped it (just before the flush to disk)."""
    rows = await stage.pool.fetch(
        "SELECT device_id, EXTRACT(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM ota_device_status"
    )
    return {row[0]: row[1] for row in rows}
