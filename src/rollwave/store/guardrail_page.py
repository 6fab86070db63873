"""The tests of campaigns' guardrails, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rollwave.store.database import Connection
from rollwave.store.guardrails import OpenTest, group_of, numbers_of
from rollwave.store.queries import load

_sql = load("guardrails")


@dataclass(frozen=True, slots=True)
class Shown:
    """A test for people. ``tripped_at``: seconds since 1970."""

    campaign_id: int
    test: OpenTest
    tripped_at: float | None
    evidence: Mapping[str, object] | None


class Asked(NamedTuple):
    """A guardrail of a campaign. ``in_short``: only tests that have tripped, without the devices that were sent to."""

    campaign_id: int
    guardrail: str
    in_short: bool = False


async def page(connection: Connection, tenant_id: str, asked: Sequence[Asked], *, limit: int) -> list[Shown]:
    """Up to ``limit`` tests of each guardrail: first those that have tripped, then those with the most failures."""
    if not asked:
        return []
    rows = await connection.fetch(
        _sql["page"],
        *(tenant_id, [each.campaign_id for each in asked], [each.guardrail for each in asked], limit),
        [each.in_short for each in asked],
    )
    return [
        Shown(
            row["campaign_id"],
            OpenTest(row["number"], group_of(row), numbers_of(row)),
            row["tripped_at"],
            None if row["evidence"] is None else json.loads(row["evidence"]),
        )
        for row in rows
    ]
