"""Campaigns under a policy document: the documents that are measured, and rows as the engine places them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bench import load
from bench.load import TABLE, Key, Place
from rollwave.domain.execution import WAVE_BITS
from rollwave.domain.policy.document.problems import parse_data
from rollwave.domain.policy.placing import placing_of
from rollwave.store import policies
from rollwave.store.database import Pool

LABEL = "hardware_revision"


@dataclass(frozen=True, slots=True)
class Placed:
    """A document, and how devices stand under it.

    ``segments``: their number. ``zones``: time zones that the segments have, in turn. ``by_hash``: the queue is in the
    order of hashes, otherwise in that of ids. ``sites``: values that the label of the budget has; 0: no budget.
    """

    document: Mapping[str, Any]
    segments: int = 1
    zones: Sequence[str] = ()
    by_hash: bool = False
    sites: int = 0


NOTHING = Placed({})


def everything() -> Placed:
    """Every rule at once, none of which holds a device back, and one segment."""
    now = datetime.now(UTC)
    guardrails: list[dict[str, Any]] = [
        {"name": "failures", "threshold": "10%", "min_finished": 20},
        {"name": "codes", "codes": ["E_BOOT"], "threshold": "10%", "action": "pause"},
        {"name": "wave", "threshold": "10%", "scope": "wave", "action": "pause"},
        {"name": "sequence", "threshold": "10%", "method": "sequential", "action": "pause"},
        {"name": "hardware", "threshold": "10%", "method": "sequential", "scope": "segment", "per": [LABEL],
         "action": "quarantine"},
    ]  # fmt: skip
    windows = [
        {"name": "always", "kind": "allow", "cron": "0 0 * * *", "duration": "2d", "time_zone": "device"},
        {"name": "over", "kind": "deny", "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"},
    ]
    return Placed(
        {
            "order": "hash",
            "waves": [{"name": "all", "max_in_flight": 1_000_000}],
            "pace": {
                "per_minute": 100_000_000,
                "ramp": {"from": 50_000_000, "factor": 2, "every_succeeded": 500},
                "max_in_flight": 1_000_000,
                "bytes": {"in_flight": "900TiB", "per_second": "900TiB"},
                "start_jitter": "10m",
            },
            "guardrails": guardrails,
            "retry": {"on": ["no_answer", "no_progress"], "max_attempts": 3, "delay": "1m", "max_delay": "1h"},
            "deadlines": {"answer": "10m", "progress": "30m", "total": "1d"},
            "schedule": {
                "start": (now - timedelta(days=1)).isoformat(timespec="seconds"),
                "end": (now + timedelta(days=1)).isoformat(timespec="seconds"),
                "windows": windows,
            },
        },
        zones=["Europe/Berlin"],
        by_hash=True,
    )


def segments(number: int) -> Placed:
    """So many segments, each judged by itself."""
    by_segment = {"threshold": "10%", "min_finished": 20, "scope": "segment", "per": [LABEL], "action": "quarantine"}
    return Placed({"guardrails": [{"name": "failures"}, {"name": "hardware", **by_segment}]}, number, by_hash=True)


def one_per_site(sites: int) -> Placed:
    """A budget of one device in flight for each of so many sites."""
    return Placed({"order": "hash", "budgets": [{"per": "site", "max_in_flight": 1}]}, by_hash=True, sites=sites)


def mostly_closed() -> Placed:
    """Ten segments of different time zones; the window of one is open for the next hour, so a tenth may be sent to."""
    opened = datetime.now(UTC) - timedelta(minutes=10)
    window = {"kind": "allow", "cron": f"{opened.minute} {opened.hour} * * *", "duration": "2h", "time_zone": "device"}
    # Two hours lie between any two of them.
    zones = ["UTC", *(f"Etc/GMT{hours:+}" for hours in (-10, -8, -6, -4, 4, 6, 8, 10, 12))]
    return Placed({"schedule": {"windows": [window]}}, len(zones), zones, by_hash=True)


async def campaign(pool: Pool, devices: int, placed: Placed | None) -> Key:
    """A campaign that is not started, under a document or (None) with flat columns."""
    [key] = await load.campaigns(pool, devices, place=_place(placed))
    if placed is not None:
        await _put(pool, key, placed)
    return key


async def many(pool: Pool, devices: int, placed: Placed) -> Key:
    """One campaign under a document that is running, with millions of devices that wait."""
    key = await load.many(pool, devices, kind="pending", place=_place(placed))
    await _put(pool, key, placed)
    return key


def _place(placed: Placed | None) -> Place:
    if placed is None:
        return load.FLAT
    key = f"('x' || substr(md5(c.id || ':' || {load.DEVICE}), 1, 11))::bit(44)::bigint" if placed.by_hash else "n"
    values = f"ARRAY['site-' || n % {placed.sites}]" if placed.sites else Place().budget_values
    return Place(f"(1 + n % {placed.segments})::int", f"(1::bigint << {WAVE_BITS}) + {key}", values)


_FIRST_OF_SITES = f"""
WITH ranked AS (
    SELECT device_id, row_number() OVER (PARTITION BY budget_values[1] ORDER BY position, id) AS rank
    FROM {TABLE} WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
), held AS (
    UPDATE {TABLE} d SET segment = -d.segment
    FROM ranked r
    WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = r.device_id AND r.rank > $3
    RETURNING d.budget_values[1] AS value, -d.segment AS segment, d.position, d.device_id
), rows AS (
    INSERT INTO ota_campaign_budget_held (tenant_id, campaign_id, budget, value, segment, position, device_id)
    SELECT $1, $2, 1, value, segment, position, device_id FROM held
)
INSERT INTO ota_campaign_budget_values (tenant_id, campaign_id, budget, value, held_segments)
SELECT $1, $2, 1, value, array_agg(DISTINCT segment) FROM held GROUP BY value"""


async def _put(pool: Pool, key: Key, placed: Placed) -> None:
    document = parse_data({"version": 1, **placed.document})
    if placed.sites:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL enable_nestloop = 0")  # nothing has statistics yet
            await connection.execute(_FIRST_OF_SITES, *key, 1, timeout=600)
    zones: list[str | None] = [*placed.zones] or [None]
    async with pool.acquire() as connection, connection.transaction():
        await policies.insert(connection, key.tenant, key.campaign, document, number=1, actor="bench")
        await connection.execute(
            "INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels, time_zone)"
            " SELECT $1, $2, n, CASE WHEN $6 THEN jsonb_build_object($3::text, n::text) ELSE '{}' END,"
            " ($4::text[])[1 + (n - 1) % cardinality($4::text[])]"
            " FROM generate_series(1, $5) AS n",
            *(*key, LABEL, zones, placed.segments, placing_of(document).splits),
        )
        await connection.execute(
            "INSERT INTO ota_campaign_cells (tenant_id, campaign_id, wave, segment,"
            " waiting, held, in_flight, succeeded, failed)"
            " SELECT $1, $2, 0, abs(segment), count(*) FILTER (WHERE status = 'PENDING'),"
            " count(*) FILTER (WHERE segment < 0),"
            " count(*) FILTER (WHERE status IN ('DOWNLOADING', 'INSTALLING')),"
            " count(*) FILTER (WHERE status = 'SUCCESS'), count(*) FILTER (WHERE status = 'FAILED')"
            f" FROM {TABLE} WHERE tenant_id = $1 AND campaign_id = $2 GROUP BY abs(segment)",
            *key,
        )
        await connection.execute(
            "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, name, size, state, since, opened_at)"
            " SELECT $1, $2, 0, $3, sum(waiting + in_flight + succeeded + failed), 'open', now(), now()"
            " FROM ota_campaign_cells WHERE tenant_id = $1 AND campaign_id = $2",
            *(*key, document.waves[0].name if document.waves else "all"),
        )
        await connection.execute(
            "UPDATE firmware_versions SET file_size_bytes = 1048576 WHERE tenant_id = $1", key.tenant
        )
        await connection.execute(
            "UPDATE ota_campaigns SET policy_revision = 1, placed_revision = 1 WHERE tenant_id = $1 AND id = $2", *key
        )
