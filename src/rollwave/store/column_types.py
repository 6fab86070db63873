"""Columns that migrations add to tables that a host may have: a host's own column of that name must have the type."""

from __future__ import annotations

from collections.abc import Mapping

from rollwave.errors import SchemaMismatch
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("column_types")

_TIME = "timestamp with time zone"

ADDED: Mapping[str, Mapping[str, str]] = {
    "ota_campaigns": {
        "policy_revision": "integer",
        "placed_revision": "integer",
        "placement": "jsonb",
        "segment_turn": "integer",
        "pace_carried": "double precision",
        "pace_claims": "double precision[]",
        "stopped_by": "text[]",
        "deadlines_from": _TIME,
        "cancelled_at": _TIME,
        "cancel_next_at": _TIME,
        "unstored_after": "text",
        "from_versions": "jsonb",
    },
    "ota_device_status": {
        "segment": "integer",
        "position": "bigint",
        "dispatch_number": "integer",
        "error_code": "text",
        "failed_before": "text[]",
        "cancel_claimed_until": _TIME,
        "cancel_sent_at": _TIME,
        "budget_values": "text[]",
        "stood_until": _TIME,
        "held_due_at": _TIME,
    },
    "rollwave_api_keys": {"last_used_at": _TIME},
}
"""The type of each column, by table, since migration 0020."""


async def require(connection: Connection) -> None:
    """Check that each of these columns that is there has its type.

    Raises:
        SchemaMismatch: a column has another type, so a host uses it for something else.
    """
    columns = [(table, name, type_) for table, of in ADDED.items() for name, type_ in of.items()]
    row = await connection.fetchrow(_sql["of_another_type"], *map(list, zip(*columns, strict=True)))
    if row is None:
        return
    table, column = row["of_table"], row["name"]
    raise SchemaMismatch(
        f"{table}.{column} has the type {row['type']}, and the engine's column of this name is {row['wanted']}",
        hint="Rename it where the host uses it, then migrate again: "
        f"ALTER TABLE {table} RENAME COLUMN {column} TO host_{column}. Nothing was changed.",
    )
