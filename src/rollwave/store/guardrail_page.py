"""The tests of a campaign's guardrails, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollwave.store.database import Connection
from rollwave.store.guardrails import OpenTest, group_of, numbers_of
from rollwave.store.queries import load

_sql = load("guardrails")


@dataclass(frozen=True, slots=True)
class Shown:
    """A test for people. ``tripped_at``: seconds since 1970."""

    test: OpenTest
    tripped_at: float | None
    evidence: Mapping[str, object] | None


async def page(
    connection: Connection, tenant_id: str, campaign_id: int, names: Sequence[str], *, limit: int
) -> list[Shown]:
    """Up to ``limit`` tests of each guardrail: first those that have tripped, then those with the most failures."""
    rows = await connection.fetch(_sql["page"], tenant_id, campaign_id, names, limit)
    return [
        Shown(
            OpenTest(row["number"], group_of(row), numbers_of(row)),
            row["tripped_at"],
            None if row["evidence"] is None else json.loads(row["evidence"]),
        )
        for row in rows
    ]
