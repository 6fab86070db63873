"""A plan that was made while a table was empty finds rows by their keys when the table is large."""

from __future__ import annotations

import pytest

from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.queries import load

SEEN = (["dev-1"], ["2.0"], 3600.0)
TEST = (1, ["failures"], [-1], [""], [1], [9], [True], [5])
CANDIDATES: tuple[object, ...] = (1, [1], [9], [0], 100, [], "x")


@pytest.mark.parametrize(
    ("noun", "name", "arguments", "queues"),
    [
        ("labels", "record", SEEN, False),
        ("guardrails", "find", TEST, False),
        ("budgets", "candidates", CANDIDATES, True),
    ],
)
async def test_a_statement_with_keys_reads_no_table_as_a_whole(
    pool: Pool, noun: str, name: str, arguments: tuple[object, ...], queues: bool
) -> None:
    await pool.execute("VACUUM ANALYZE rollwave_device_fields, ota_campaign_tests, ota_campaign_test_buckets")
    await pool.execute("VACUUM ANALYZE ota_campaign_budget_values, ota_device_status")
    async with tenant_transaction(pool, "north", generic_plans=not queues, queues=queues) as connection:
        if queues:
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        rows = await connection.fetch(f"EXPLAIN {load(noun)[name]}", "north", *arguments)
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    assert "Materialize" not in plan, plan


CLAIM: tuple[object, ...] = (
    *(1, 100, 100, 60.0, "x", "x", 60.0, False, "{}", [1], [100], [0]),
    *(True, None, 0.0, 0, ["UTC"], None, False, None),
)


@pytest.mark.parametrize(
    ("noun", "name", "arguments"), [("executions", "claim", CLAIM), ("budgets", "candidates", CANDIDATES)]
)
async def test_a_claim_reads_the_head_of_the_queue_though_statistics_know_of_no_devices(
    pool: Pool, noun: str, name: str, arguments: tuple[object, ...]
) -> None:
    await pool.execute("ALTER TABLE ota_device_status SET (autovacuum_enabled = off)")
    await pool.execute("INSERT INTO tenants VALUES ('north')")
    await pool.execute(
        "WITH firmware AS (INSERT INTO firmware_versions (tenant_id, version, file_url, checksum_sha256)"
        " VALUES ('north', '1', 'https://files.invalid/f', repeat('0', 64)) RETURNING id)"
        " INSERT INTO ota_campaigns (id, tenant_id, name, firmware_version_id) SELECT 1, 'north', 'c', id FROM firmware"
    )
    # In an order other than that of ids, so that the queue's index has more levels than the primary key.
    await pool.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, segment, position)"
        " SELECT 'north', 1, 'device-' || lpad(n::text, 8, '0'), 1, (1::bigint << 44) + hashint8(n)"
        " FROM generate_series(1, 30000) AS n"
    )
    async with tenant_transaction(pool, "north", queues=True) as connection:
        rows = await connection.fetch(f"EXPLAIN {load(noun)[name]}", "north", *arguments)
    plan = "\n".join(row[0] for row in rows)
    assert "ota_device_status_pkey" not in plan, plan
    assert "ota_device_status_waiting" in plan, plan
