"""Steady, moderate load for as long as you like: does anything grow? ``make bench ARGS="--soak 3600"``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import linear_regression

from bench import load
from bench.fleet import devices
from bench.load import TABLE, Key
from bench.machine import memory
from bench.rates import once_in_a_while
from bench.report import RESULTS, Report, write
from bench.session import Session
from bench.stage import Stage, staged
from rollwave.engine import operations
from rollwave.store.database import Pool

KEPT = RESULTS / "soak.json"

PER_SECOND = 300
"""Devices a second; each reports three times."""

CAMPAIGN = 6_000
TICK = 2
WARM = 0.25
"""The share of the time before anything counts as growth."""


@dataclass(frozen=True, slots=True)
class Sample:
    """``at`` is seconds since the start, ``memory`` and ``table`` (with its indexes) are MB."""

    at: float
    memory: float
    lag: float
    table: float


async def soak(session: Session, seconds: float) -> None:
    """One campaign after the other, each deleted when the next but one begins, as a host may."""
    samples: list[Sample] = []
    every = min(60.0, seconds / 10)
    async with session.lab.database() as database:
        settings = {"OTA_TICK_INTERVAL": str(TICK)}
        async with (
            staged(session.lab, database, settings=settings) as stage,
            devices(stage.port, "DOWNLOADING", "INSTALLING", "SUCCESS"),
        ):
            started, earlier = time.monotonic(), list[Key]()
            while (at := time.monotonic() - started) < seconds:
                [key] = await load.campaigns(stage.pool, CAMPAIGN, rate=PER_SECOND * TICK)
                await operations.start_campaign(stage.pool, *key, actor="bench")
                await once_in_a_while(stage.pool, _OVER, *key, every=0.5)
                earlier.append(key)
                await _forget(stage.pool, earlier)
                if at >= every * len(samples):
                    samples.append(await _sample(stage, at))
                    now = samples[-1]
                    session.say(f"soak: {now.memory:.1f} MB, {now.lag:.0f} reports behind, table {now.table:.1f} MB")
    kept = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "samples": [asdict(s) for s in samples]}
    write(kept | {"seconds": seconds, "per_second": PER_SECOND}, KEPT)
    recall(session.report)


def recall(report: Report) -> None:
    """Add what the last soak has found."""
    if KEPT.exists():
        kept = json.loads(KEPT.read_text())
        samples = [Sample(**each) for each in kept["samples"]]
        table = growth(samples, [each.table for each in samples])
        remark = f"table {table:+.1f} MB; soak of {kept['seconds']:,.0f} s on {kept['measured_at'][:10]}"
        report.add("memory.growth", growth(samples, [each.memory for each in samples]), remark)


def growth(samples: Sequence[Sample], values: Sequence[float]) -> float:
    """How much ``values`` grow in an hour, once warm: the slope of a straight line through them."""
    warm = [(s.at, value) for s, value in zip(samples, values, strict=True) if s.at >= samples[-1].at * WARM]
    return linear_regression(*zip(*warm, strict=True)).slope * 3600


async def _sample(stage: Stage, at: float) -> Sample:
    size = await stage.pool.fetchval(f"SELECT pg_total_relation_size('{TABLE}')")
    lag = await stage.metric("rollwave_report_lag")
    return Sample(at, memory(stage.workers[0])[0], lag, size / 2**20)


_OVER = "SELECT status = 'COMPLETED' FROM ota_campaigns WHERE tenant_id = $1 AND id = $2"


async def _forget(pool: Pool, earlier: list[Key]) -> None:
    """Delete all campaigns but the last."""
    while len(earlier) > 1:
        key = earlier.pop(0)
        for table in (TABLE, "ota_campaign_waves", "ota_campaign_history"):
            await pool.execute(f"DELETE FROM {table} WHERE tenant_id = $1 AND campaign_id = $2", *key)
        await pool.execute("DELETE FROM ota_campaigns WHERE tenant_id = $1 AND id = $2", *key)
