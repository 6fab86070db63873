"""Rows, as a host would write them with its own SQL, and as fast as a table takes them where they are millions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple

import asyncpg

from rollwave.mqtt.payload import encode_command
from rollwave.store.database import Pool
from rollwave.store.targets import MAX_DEVICES_PER_BATCH

TENANT = "north"
TABLE = "ota_device_status"
NO_PACE = 1_000_000_000

_FIRMWARE = ("2.1.0", "https://files.invalid/firmware.bin", "0" * 64)

# Each is an update of its own, so that the table is as worn as a dispatch leaves it.
_CLAIMED = "attempt = 1, due_at = now() + interval '30 s'"
_MARKED = "status = 'DOWNLOADING', sent_attempt = 1, started_at = now(), due_at = now() + interval '30 min'"

DEVICE = "'device-' || lpad(n::text, 8, '0')"
"""SQL for the name of the device ``n``, from 0."""

_MANY = f"""
INSERT INTO {TABLE} (id, tenant_id, campaign_id, device_id, status, attempt, sent_attempt, heard_attempt, progress_pct,
                     started_at, due_at, completed_at, segment, position, budget_values)
SELECT n + 1, $1, $2, {DEVICE}, status, attempt, attempt, attempt, 0,
       CASE WHEN attempt > 0 THEN now() END,
       CASE WHEN status IN ('DOWNLOADING', 'INSTALLING') THEN now() + interval '25 min' END,
       CASE WHEN status IN ('SUCCESS', 'FAILED') THEN now() END, {{segment}}, {{position}}, {{budget_values}}
FROM generate_series($3::bigint, $4::bigint - 1) AS n
CROSS JOIN (SELECT $2::bigint AS id) AS c
CROSS JOIN LATERAL (SELECT CASE WHEN $5 = 'pending' THEN 'PENDING' WHEN $5 = 'sent' THEN 'DOWNLOADING'
                                WHEN n % ($4 / 10) = 1 THEN 'INSTALLING' WHEN n % 100 = 2 THEN 'FAILED'
                                WHEN n % 100 < 12 THEN 'DOWNLOADING' WHEN n % 100 < 22 THEN 'SUCCESS'
                                ELSE 'PENDING' END AS status) AS s
CROSS JOIN LATERAL (SELECT CASE WHEN status = 'PENDING' THEN 0 ELSE 1 END AS attempt) AS a"""


class Place(NamedTuple):
    """SQL for where the device ``n`` of the campaign ``c.id`` stands in the queue. Default: flat columns."""

    segment: str = "0"
    position: str = "0"
    budget_values: str = "NULL::text[]"


FLAT = Place()


class Key(NamedTuple):
    """Whose campaign it is, and its id."""

    tenant: str
    campaign: int


def device_name(number: int) -> str:
    """The n-th device of a campaign, from 0."""
    return f"device-{number:08}"


def tenant_name(number: int) -> str:
    """The n-th tenant, from 0."""
    return f"{TENANT}-{number:05}" if number else TENANT


def command_body(campaign: int) -> bytes:
    """What the engine sends for a campaign of this module."""
    version, url, checksum = _FIRMWARE
    return encode_command(campaign, url, version, checksum)


async def campaigns(
    pool: Pool,
    devices: int,
    *,
    tenants: int = 1,
    each: int = 1,
    sent: bool = False,
    rate: int = NO_PACE,
    status: str = "CREATED",
    insert_devices: bool = True,
    place: Place = FLAT,
) -> list[Key]:
    """``each`` campaigns of ``devices`` for each of ``tenants``; ``sent``: as if every device had its command.

    Rows are inserted as targeting does: in batches, each in the order of the queue.
    """
    names = [tenant_name(number) for number in range(tenants)]
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO tenants (tenant_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", names
        )
        firmware = await connection.fetch(
            "INSERT INTO firmware_versions (tenant_id, version, file_url, checksum_sha256)"
            " SELECT name, $2 || '+' || (SELECT count(*) FROM firmware_versions f WHERE f.tenant_id = name), $3, $4"
            " FROM unnest($1::text[]) AS name RETURNING id",
            *(names, *_FIRMWARE),
        )
        rows = await connection.fetch(
            "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, rollout_rate, status, total_devices,"
            " sent, command) SELECT f.tenant_id, 'bench', f.id, $3, $4, $5, $6, $7"
            " FROM firmware_versions f, generate_series(1, $2) WHERE f.id = ANY ($1) RETURNING tenant_id, id",
            *([row["id"] for row in firmware], each, rate, status, devices),
            *(devices if sent else 0, "{}" if sent else None),
        )
        keys = [Key(row["tenant_id"], row["id"]) for row in rows]
        if insert_devices:
            await connection.execute(
                f"INSERT INTO {TABLE} (tenant_id, campaign_id, device_id, segment, position, budget_values)"
                f" SELECT c.tenant_id, c.id, {DEVICE}, {place.segment} AS segment, {place.position} AS position,"
                f" {place.budget_values}"
                " FROM ota_campaigns c, generate_series(0, $2 - 1) AS n WHERE c.id = ANY ($1)"
                f" ORDER BY n / {MAX_DEVICES_PER_BATCH}, segment, position, n, c.id",
                *([key.campaign for key in keys], devices),
            )
    if sent:
        for step in (_CLAIMED, _MARKED):
            await pool.execute(f"UPDATE {TABLE} SET {step}")
    return keys


async def many(
    pool: Pool,
    devices: int,
    *,
    kind: Literal["mixed", "pending", "sent"] = "mixed",
    status: str = "RUNNING",
    place: Place = FLAT,
) -> Key:
    """One campaign of millions: some in every state, all PENDING, or all sent to. Indexes are made after its rows."""
    [key] = await campaigns(pool, devices, status=status, insert_devices=False)
    if kind == "sent":
        await pool.execute("UPDATE ota_campaigns SET sent = $1, command = '{}'", devices)
    indexes = await pool.fetch(
        "SELECT c.oid::regclass::text AS name, pg_get_indexdef(c.oid) AS made, k.conname AS key,"
        " pg_get_constraintdef(k.oid) AS constrains"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = c.oid"
        f" WHERE i.indrelid = '{TABLE}'::regclass",
    )
    for index in indexes:
        await pool.execute(
            f"ALTER TABLE {TABLE} DROP CONSTRAINT {index['key']}" if index["key"] else f"DROP INDEX {index['name']}"
        )
    middle = devices // 2
    parts = [(0, middle), (middle, devices)]
    rows = _MANY.format(**place._asdict())
    await _side_by_side(pool, *((rows, *key, *part, kind) for part in parts))
    await pool.execute(f"SELECT setval(pg_get_serial_sequence('{TABLE}', 'id'), $1)", devices)
    # A key locks the table for itself; the others can be made side by side.
    await _side_by_side(pool, *((each["made"],) for each in indexes if not each["key"]))
    await _side_by_side(
        pool, *((f"ALTER TABLE {TABLE} ADD CONSTRAINT {i['key']} {i['constrains']}",) for i in indexes if i["key"])
    )
    await pool.execute(f"VACUUM (ANALYZE) {TABLE}", timeout=600)
    return key


async def registry(pool: Pool, number: int, group: str, *, attributes: str = "'{}'::jsonb") -> int:
    """A tenant's devices, all members of a group, and firmware for them; returns the firmware's id.

    ``attributes``: SQL for those of the device ``n``.
    """
    await campaigns(pool, 0)
    await pool.execute("INSERT INTO device_groups (tenant_id, group_id) VALUES ($1, $2)", TENANT, group)
    of_all = TENANT, number
    all_of_them = "FROM generate_series(0, $2::bigint - 1) AS n"
    await _side_by_side(
        pool,
        (
            f"INSERT INTO devices (tenant_id, device_id, attributes) SELECT $1, {DEVICE}, {attributes} {all_of_them}",
            *of_all,
        ),
        (
            f"INSERT INTO device_group_members (tenant_id, group_id, device_id) SELECT $1, $3, {DEVICE} {all_of_them}",
            *(TENANT, number, group),
        ),
    )
    await pool.execute("VACUUM (ANALYZE) devices, device_group_members", timeout=600)
    firmware: int = await pool.fetchval("SELECT max(id) FROM firmware_versions")
    return firmware


async def _side_by_side(pool: Pool, *statements: Sequence[object]) -> None:
    async def run(statement: str, *arguments: object) -> None:
        async with pool.acquire() as connection, connection.transaction():
            # Foreign keys hold by construction.
            await connection.execute(
                "SET LOCAL session_replication_role = replica; SET LOCAL maintenance_work_mem = '512MB'"
            )
            try:
                await connection.execute(statement, *arguments, timeout=900)
            except asyncpg.PostgresError as error:
                error.add_note(statement)
                raise

    await asyncio.gather(*(run(str(statement), *arguments) for statement, *arguments in statements))
