"""Large groups, imported in parts: each part is kept beside the group until all of them become its members at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType

import asyncpg

from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.store import devices
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.devices import Description, Membership
from rollwave.store.moments import Document, with_moments
from rollwave.store.queries import load
from rollwave.store.rejected_values import Written, refusing

_sql = load("imports")

MAX_DEVICES = 1_000_000
"""Devices of one import."""

MAX_OPEN = 10
"""Imports of one tenant that are neither applied nor expired."""

EXPIRES_AFTER_SECONDS = 3600.0
"""Seconds without another part, after which an import is forgotten."""

BATCH = 5000
"""Devices of one statement, while an import is applied. Is the FETCH of ``next_devices`` too."""

TIMEOUT_SECONDS = 300.0
"""Seconds for one statement over the devices of an import."""


async def begin(pool: Pool, tenant_id: str, group_id: str, *, actor: str) -> Document:
    """Begin an import into a group, which need not exist. Imports that have expired are forgotten.

    Raises:
        InvalidInput: the group's id cannot be one in this database.
        Conflict: the tenant has ``MAX_OPEN`` imports already.
    """
    written = devices.group_written(group_id)
    async with refusing(pool, written), tenant_transaction(pool, tenant_id, timeout=TIMEOUT_SECONDS) as connection:
        await connection.execute(_sql["forget_expired"], tenant_id, timeout=TIMEOUT_SECONDS)
        if await connection.fetchval(_sql["open"], tenant_id) >= MAX_OPEN:
            raise Conflict(
                f"there are {MAX_OPEN} imports that are neither applied nor cancelled",
                hint=f"Apply or cancel one; each expires {EXPIRES_AFTER_SECONDS / 60:g} minutes after its last part.",
            )
        row = await connection.fetchrow(_sql["insert"], tenant_id, group_id, actor, EXPIRES_AFTER_SECONDS)
    return with_moments(row or {})


async def add(
    pool: Pool,
    tenant_id: str,
    group_id: str,
    import_id: int,
    device_ids: Iterable[str],
    described: Mapping[str, Description] = MappingProxyType({}),
) -> Document:
    """Add devices to an import. The same devices again change nothing, so that a part may be sent twice.

    Raises:
        NotFound: there is no such import, or it has expired.
        Conflict: it was applied.
        InvalidInput: it would have more than ``MAX_DEVICES``, or this database cannot hold a value.
    """
    known = [*described.values()]
    ids = [*described, *({*device_ids} - described.keys())]
    plain = len(ids) - len(known)
    written = [
        *devices.members_written(ids[len(known) :]),
        *devices.members_written([*described], [each.device_type for each in known], "devices"),
    ]
    async with refusing(pool, written), tenant_transaction(pool, tenant_id) as connection:
        locked = await _lock(connection, tenant_id, group_id, import_id)
        if locked["applied"] is not None:
            raise _applied(import_id)
        added = await connection.fetchval(
            _sql["add_devices"],
            *(tenant_id, import_id, ids),
            *([True] * len(known) + [False] * plain, [each.device_type for each in known] + [None] * plain),
            [json.dumps(each.attributes) for each in known] + [None] * plain,
        )
        if locked["devices"] + added > MAX_DEVICES:
            raise InvalidInput(
                f"an import may have {MAX_DEVICES:,} devices", hint="Import the devices into several groups."
            )
        row = await connection.fetchrow(_sql["count_devices"], tenant_id, import_id, added, EXPIRES_AFTER_SECONDS)
    return with_moments(row or {})


async def apply(pool: Pool, tenant_id: str, group_id: str, import_id: int) -> Membership:
    """Make the import's devices the members of its group: all of them, and no other, in one transaction.

    Applying it again changes nothing and returns the same.

    Raises:
        NotFound: there is no such import, or it has expired.
        Conflict: it has no devices, or one of the host's own tables refuses a row.
        InvalidInput: a column of one of the host's own tables does not hold a value.
    """
    written = devices.group_written(group_id)
    async with (
        refusing(pool, written),
        tenant_transaction(pool, tenant_id, timeout=TIMEOUT_SECONDS, lock_timeout=TIMEOUT_SECONDS) as connection,
    ):
        locked = await _lock(connection, tenant_id, group_id, import_id)
        if locked["applied"] is not None:
            return Membership(**json.loads(locked["applied"]))
        if not locked["devices"]:
            raise Conflict(f"import {import_id} has no devices", hint="Add devices before you apply it.")
        await devices.lock_group(connection, tenant_id, group_id)
        await connection.execute(_sql["plan_for_these_values"])
        device_ids, registered = await _register(connection, tenant_id, import_id, written)
        added, removed = await _replace_members(connection, tenant_id, group_id, device_ids, written)
        outcome = Membership(total=len(device_ids), added=added, removed=removed, registered=registered)
        await connection.execute(_sql["finish"], tenant_id, import_id, json.dumps(asdict(outcome)))
        await devices.changed(connection, _sql["forget_devices"], tenant_id, import_id)
        return outcome


async def _register(
    connection: Connection, tenant_id: str, import_id: int, written: list[Written]
) -> tuple[set[str], int]:
    """Register and describe the import's devices; their ids, and how many were new. ``written`` is the batch in work.

    Batch by batch, with lists of ids. Joined to the import's table, the same took minutes: of rows that have just come,
    PostgreSQL expects one, and reads all of them again for each device.
    """
    device_ids: set[str] = set()
    registered = 0
    await connection.execute(_sql["open_devices"], tenant_id, import_id, timeout=TIMEOUT_SECONDS)
    while rows := await connection.fetch(_sql["next_devices"], timeout=TIMEOUT_SECONDS):
        ids = [row["device_id"] for row in rows]
        written[:] = devices.members_written(ids, [row["device_type"] for row in rows])
        registered += await devices.register(connection, tenant_id, ids)
        if known := [row for row in rows if row["described"]]:
            columns = ([row[name] for row in known] for name in ("device_id", "device_type", "attributes"))
            await devices.describe(connection, tenant_id, *columns)
        device_ids.update(ids)
    return device_ids, registered


async def _replace_members(
    connection: Connection, tenant_id: str, group_id: str, device_ids: set[str], written: list[Written]
) -> tuple[int, int]:
    """Make the devices the group's members; how many were added and removed. ``written`` is the batch in work."""
    rows = await connection.fetch(_sql["members"], tenant_id, group_id, timeout=TIMEOUT_SECONDS)
    members = {row["device_id"] for row in rows}
    added = removed = 0
    for ids in _batches(members - device_ids):
        removed += await devices.changed(connection, _sql["remove_members"], tenant_id, group_id, ids)
    for ids in _batches(device_ids - members):
        written[:] = [*devices.group_written(group_id), *devices.members_written(ids)]
        added += await devices.add_members(connection, tenant_id, group_id, ids)
    return added, removed


def _batches(device_ids: set[str]) -> Iterator[list[str]]:
    ordered = sorted(device_ids)
    return (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))


async def cancel(pool: Pool, tenant_id: str, group_id: str, import_id: int) -> None:
    """Forget an import. The group stays as it is.

    Raises:
        NotFound: there is no such import, or it has expired.
        Conflict: it was applied.
    """
    async with tenant_transaction(pool, tenant_id, timeout=TIMEOUT_SECONDS, lock_timeout=TIMEOUT_SECONDS) as connection:
        locked = await _lock(connection, tenant_id, group_id, import_id)
        if locked["applied"] is not None:
            raise _applied(import_id)
        await devices.changed(connection, _sql["forget_devices"], tenant_id, import_id)
        await connection.execute(_sql["delete"], tenant_id, import_id)


async def _lock(connection: Connection, tenant_id: str, group_id: str, import_id: int) -> asyncpg.Record:
    row = await connection.fetchrow(_sql["lock"], tenant_id, import_id, group_id, timeout=TIMEOUT_SECONDS)
    if row is None:
        raise NotFound(f"no import {import_id} into group {group_id}", hint="It may have expired: begin a new one.")
    return row


def _applied(import_id: int) -> Conflict:
    return Conflict(f"import {import_id} was applied", hint="Begin a new import to change the group again.")
