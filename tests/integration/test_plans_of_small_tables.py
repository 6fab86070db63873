"""A plan that was made while a table was empty finds rows by their keys when the table is large."""

from __future__ import annotations

import pytest

from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.queries import load

SEEN = (["dev-1"], ["2.0"], 3600.0)
TEST = (1, ["failures"], [-1], [""], [1], [9], [True], [5])
CANDIDATES: tuple[object, ...] = (1, [1], [9], 1 << 50, 100, [], "x")


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
