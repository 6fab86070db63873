"""Dispatch and ingestion under policy documents over those with flat columns: one worker, campaigns in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from statistics import median

from bench import documents
from bench.documents import Placed
from bench.fleet import Says, devices, report
from bench.load import TABLE, Key
from bench.rates import TIMEOUT_SECONDS, once_in_a_while
from bench.session import Session
from bench.stage import Stage, staged
from rollwave.engine import operations
from tests.support import eventually

FLAT = "flat"
ROUNDS = 3

SETTLED_SECONDS = 0.5
"""Seconds without another device marked after which the commands of a paused campaign are all marked."""

TIMED = 10_000
"""Devices that are sent to and report in each round. A campaign has more, so that it does not run out of devices."""


def _variants(devices: int) -> Mapping[str, Placed | None]:
    return {
        FLAT: None,
        "nothing": documents.NOTHING,
        "everything": documents.everything(),
        **{str(number): documents.segments(number) for number in (10, 1000, 10_000)},
        "budget": documents.one_per_site(devices * 3 // 10),
    }


async def measure(session: Session) -> None:
    """Each variant sends to some thousand devices, and hears from them, before the next; then all do so again."""
    number = session.options.devices
    timed = min(TIMED, number // 5)  # fewer than the budget has sites
    rates: dict[str, list[tuple[float, float]]] = {}
    async with (
        session.lab.database() as database,
        staged(session.lab, database) as stage,
        devices(stage.port),
    ):
        for turn in range(ROUNDS + 1):
            session.say(f"policy: round {turn} of {ROUNDS}")
            for name, placed in _variants(number).items():
                key = await documents.campaign(stage.pool, number, placed)
                rate = await _dispatch(stage, key, timed), await _ingest(stage, key, timed)
                if turn:  # the first round warms up
                    rates.setdefault(name, []).append(rate)
    for name, of_name in rates.items():
        for what, index in {"dispatch": 0, "ingest": 1}.items():
            mine, flat = ([each[index] for each in of] for of in (of_name, rates[FLAT]))
            if name == FLAT:
                session.report.add(f"policy.{what}.flat", median(flat))
                continue
            for each, beside in zip(mine, flat, strict=True):
                session.report.add(f"policy.{what}.{name}", each / beside, f"{median(mine):,.0f}/s")


async def _dispatch(stage: Stage, key: Key, number: int) -> float:
    """From the start to the last command marked, of about ``number`` devices: a pause ends it."""
    await operations.start_campaign(stage.pool, *key, actor="bench")
    await once_in_a_while(
        stage.pool, f"SELECT sent >= {number} FROM ota_campaigns WHERE id = $1", key.campaign, every=0.05
    )
    await operations.pause_campaign(stage.pool, *key, actor="bench")
    rows = f"FROM {TABLE} WHERE tenant_id = $1 AND campaign_id = $2"
    marked = -1

    async def settled() -> bool:
        nonlocal marked
        await asyncio.sleep(SETTLED_SECONDS)
        before, marked = marked, await stage.pool.fetchval(f"SELECT count(*) {rows} AND status = 'DOWNLOADING'", *key)
        return bool(before == marked)

    await eventually(settled, timeout=TIMEOUT_SECONDS, what="all commands are marked")
    rate: float = await stage.pool.fetchval(
        "SELECT count(*) / EXTRACT(epoch FROM max(pg_xact_commit_timestamp(d.xmin))"
        " - (SELECT started_at FROM ota_campaigns WHERE id = $2))::float8"
        f" FROM (SELECT xmin {rows} AND status = 'DOWNLOADING') AS d",
        *key,
    )
    return rate


async def _ingest(stage: Stage, key: Key, number: int) -> float:
    """From the first commit of reports to the last.

    Devices report in random order, whatever the order in which they were sent to. In that of their ids, which is that
    of the index, PostgreSQL would be faster, and only a campaign without hash order would have that advantage.
    """
    rows = f"FROM {TABLE} WHERE tenant_id = $1 AND campaign_id = $2"
    sent = await stage.pool.fetch(
        f"SELECT device_id {rows} AND status = 'DOWNLOADING' ORDER BY md5(device_id) LIMIT {number}", *key
    )
    await report(stage.port, [Says(key.tenant, row["device_id"], key.campaign) for row in sent])
    done = f"SELECT succeeded >= {len(sent)} FROM ota_campaigns WHERE id = $1"
    await once_in_a_while(stage.pool, done, key.campaign, every=0.05)
    rate: float = await stage.pool.fetchval(
        "SELECT count(*) FILTER (WHERE at > first) / EXTRACT(epoch FROM max(at) - min(first))::float8"
        " FROM (SELECT at, min(at) OVER () AS first FROM"
        f" (SELECT pg_xact_commit_timestamp(xmin) AS at {rows} AND status = 'SUCCESS') AS reported) AS timed",
        *key,
    )
    return rate
