"""Imports a large group in parts: they are stored beside the group, and applied together in one transaction."""

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
"""Maximum number of devices in one import."""

MAX_OPEN = 10
"""Maximum number of imports of one tenant that are neither applied nor expired."""

EXPIRES_AFTER_SECONDS = 3600.0
"""Seconds after the last part after which an import is deleted."""

BATCH = 5000
"""Number of devices per statement while an import is applied. The same number as in the FETCH of ``next_devices``."""

TIMEOUT_SECONDS = 300.0
"""Maximum number of seconds for one statement over the devices of an import."""


async def begin(pool: Pool, tenant_id: str, group_id: str, *, actor: str) -> Document:
    """Begin an import into a group, which need not exist. Expired imports are deleted.

    Raises:
        InvalidInput: this database cannot store the group's id.
        Conflict: the tenant already has ``MAX_OPEN`` imports.
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
    """Add devices to an import. Adding the same devices again changes nothing, so a part may be sent twice.

    Raises:
        NotFound: there is no such import, or it has expired.
        Conflict: it was applied.
        InvalidInput: it would have more than ``MAX_DEVICES``, or this database cannot store a value.
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
    """Replace the members of the group by the import's devices, in one transaction.

    Applying it again changes nothing and returns the same result.

    Raises:
        NotFound: there is no such import, or it has expired.
        Conflict: it has no devices, or one of the host's own tables refuses a row.
        InvalidInput: a value does not fit a column of one of the host's own tables.
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
    """Register the import's devices. Returns their ids and the number of new ones. ``written``: the present batch.

    Works in batches, with lists of ids. A join with the import's table took minutes: PostgreSQL expects one row in a
    table that was just filled, and reads all rows again for each device.
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
    """Replace the group's members. Returns the numbers added and removed. ``written``: the present batch."""
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
    """Delete an import. The group does not change.

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
