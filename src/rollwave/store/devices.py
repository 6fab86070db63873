"""Devices and device groups of a tenant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from rollwave.errors import NotFound
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document, with_moments
from rollwave.store.page import Page, page
from rollwave.store.queries import load
from rollwave.store.rejected_values import Written, fields, refusing

_sql = load("devices")

_GROUP_TIMEOUT = 60.0
"""Seconds for one statement over a group of 100,000."""


@dataclass(frozen=True, slots=True)
class Membership:
    """The changes that replacing a group's members made."""

    total: int
    added: int
    removed: int
    registered: int


@dataclass(frozen=True, slots=True)
class Description:
    """The type and attributes of a device."""

    device_type: str | None
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fields:
    """What the registry stores of a device beside the table ``devices``, which a host may have made.

    Attributes:
        time_zone: an IANA name; None: not known.
        version: of its firmware; None: not known.
        keeps_version: a version that is stored stays, for example one that the device has reported.
    """

    time_zone: str | None = None
    version: str | None = None
    keeps_version: bool = True


async def put_device(
    pool: Pool,
    tenant_id: str,
    device_id: str,
    *,
    device_type: str | None,
    attributes: dict[str, Any],
    fields_beside: Fields = Fields(),
) -> Document:
    """Register a device, or replace its type, attributes and fields.

    Raises:
        InvalidInput: a value does not fit a column of the host's own table.
        Conflict: the host's own table refuses the row.
    """
    values = (tenant_id, device_id, device_type, json.dumps(attributes))
    written = fields("devices", device_id=device_id, device_type=device_type, attributes=attributes)
    async with refusing(pool, written), tenant_transaction(pool, tenant_id) as connection:
        if await connection.fetchrow(_sql["update_device"], *values) is None:
            await connection.execute(_sql["insert_device"], *values)
        await _put_fields(connection, tenant_id, device_id, fields_beside)
        row = await connection.fetchrow(_sql["get_device"], tenant_id, device_id)
    assert row is not None  # it has just been written
    return device(with_moments(row))


async def _put_fields(connection: Connection, tenant_id: str, device_id: str, given: Fields) -> None:
    if given.time_zone is None and given.keeps_version:  # most devices have no row, and need none
        await connection.execute(_sql["empty_time_zone"], tenant_id, device_id)
    else:
        version = None if given.keeps_version else given.version
        await connection.execute(
            _sql["put_fields"], tenant_id, device_id, given.time_zone, version, not given.keeps_version
        )


async def get_device(pool: Pool, tenant_id: str, device_id: str) -> Document:
    """One device.

    Raises:
        NotFound: this tenant has no such device.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(_sql["get_device"], tenant_id, device_id)
    if row is None:
        raise NotFound(f"no device {device_id}", hint="List the devices to see their ids.")
    return device(with_moments(row))


async def get_devices(pool: Pool, tenant_id: str, device_ids: Sequence[str]) -> list[Document]:
    """Those of these devices that are registered, ordered by id."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return await devices_of(connection, tenant_id, device_ids)


async def groups_of(pool: Pool, tenant_id: str, device_id: str, *, limit: int) -> list[str]:
    """The first ``limit`` groups of a device, ordered by id."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return [row["group_id"] for row in await connection.fetch(_sql["groups_of"], tenant_id, device_id, limit)]


async def devices_of(connection: Connection, tenant_id: str, device_ids: Sequence[str]) -> list[Document]:
    """These devices, ordered by id."""
    rows = await connection.fetch(_sql["devices_of"], tenant_id, device_ids)
    return [device(with_moments(row)) for row in rows]


async def find_devices(
    pool: Pool, tenant_id: str, *, device_type: str | None, limit: int, cursor: str | None = None
) -> Page:
    """A page of devices, ordered by id. ``device_type`` None: devices of every type."""
    async with tenant_transaction(pool, tenant_id) as connection:
        records = await connection.fetch(_sql["devices"], tenant_id, device_type, cursor, limit + 1)
        total = await connection.fetchval(_sql["count_devices"], tenant_id, device_type)
    found = page(records, total, limit=limit, key="device_id")
    return Page([device(row) for row in found.rows], found.total, found.next_cursor)


async def put_group(
    pool: Pool,
    tenant_id: str,
    group_id: str,
    device_ids: Iterable[str],
    described: Mapping[str, Description] = MappingProxyType({}),
) -> Membership:
    """Replace the members of a group by these devices. New devices are registered.

    The devices in ``described`` become members too, and their type and attributes are replaced.

    Raises:
        InvalidInput: a value does not fit a column of one of the host's own tables.
        Conflict: one of the host's own tables refuses a row.
    """
    plain = [*device_ids]
    types = [each.device_type for each in described.values()]
    wanted = sorted({*plain, *described})
    written = [*group_written(group_id), *members_written(plain), *members_written([*described], types, "devices")]
    async with refusing(pool, written), tenant_transaction(pool, tenant_id, timeout=_GROUP_TIMEOUT) as connection:
        await lock_group(connection, tenant_id, group_id)
        registered = await register(connection, tenant_id, wanted)
        if described:
            attributes = [json.dumps(each.attributes) for each in described.values()]
            await describe(connection, tenant_id, list(described), types, attributes)
        return Membership(
            registered=registered,
            removed=await changed(connection, _sql["remove_members"], tenant_id, group_id, wanted),
            added=await add_members(connection, tenant_id, group_id, wanted),
            total=len(wanted),
        )


def group_written(group_id: str) -> list[Written]:
    """The column to which a group's id is written."""
    return [Written(table, "group_id", [group_id], "group_id") for table in ("device_groups", "device_group_members")]


def members_written(
    device_ids: Sequence[str], types: Sequence[str | None] = (), field: str = "device_ids"
) -> list[Written]:
    """The columns to which the members in a request's ``field``, their types and attributes are written."""
    return [
        Written("devices", "device_id", device_ids, field, quoted=True),
        Written("device_group_members", "device_id", device_ids, field, quoted=True),
        Written("devices", "device_type", types, field, quoted=True),
    ]


async def lock_group(connection: Connection, tenant_id: str, group_id: str) -> None:
    """Lock the group until the transaction ends. Create it if it does not exist."""
    if await connection.fetchval(_sql["lock_group"], tenant_id, group_id) is None:
        await connection.execute(_sql["insert_group"], tenant_id, group_id)


class Group(NamedTuple):
    """A group's row, and a page of its members, ordered by id."""

    row: Document
    members: Page


async def get_group(pool: Pool, tenant_id: str, group_id: str, *, limit: int, cursor: str | None = None) -> Group:
    """A group, and a page of its members, ordered by id.

    Raises:
        NotFound: this tenant has no such group.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(_sql["get_group"], tenant_id, group_id)
        if row is None:
            raise NotFound(f"no device group {group_id}", hint="List the device groups to see their ids.")
        records = await connection.fetch(_sql["members"], tenant_id, group_id, cursor, limit + 1)
    return Group(with_moments(row), page(records, row["total"], limit=limit, key="device_id"))


async def find_groups(pool: Pool, tenant_id: str, *, limit: int, cursor: str | None = None) -> Page:
    """A page of groups, ordered by id, each with the number of its members."""
    async with tenant_transaction(pool, tenant_id) as connection:
        records = await connection.fetch(_sql["groups"], tenant_id, cursor, limit + 1)
        total = await connection.fetchval(_sql["count_groups"], tenant_id)
    return page(records, total, limit=limit, key="group_id")


async def register(connection: Connection, tenant_id: str, device_ids: Sequence[str]) -> int:
    """Register the devices that are not registered yet. Returns their number."""
    return await changed(connection, _sql["register_devices"], tenant_id, device_ids)


async def describe(
    connection: Connection,
    tenant_id: str,
    device_ids: Sequence[str],
    types: Sequence[str | None],
    attributes: Sequence[str],
) -> None:
    """Replace type and attributes of registered devices. ``attributes`` are JSON."""
    await connection.execute(_sql["describe_devices"], tenant_id, device_ids, types, attributes, timeout=_GROUP_TIMEOUT)


async def add_members(connection: Connection, tenant_id: str, group_id: str, device_ids: Sequence[str]) -> int:
    """Add registered devices to a group. Returns the number of those that were not in it."""
    return await changed(connection, _sql["add_members"], tenant_id, group_id, device_ids)


async def changed(connection: Connection, sql: str, *values: Any) -> int:
    """Execute a statement over a large group. Returns the number of rows that it changed."""
    tag = await connection.execute(sql, *values, timeout=_GROUP_TIMEOUT)
    return int(tag.rpartition(" ")[2])


def device(row: Document) -> Document:
    """A device from a row with its attributes as text."""
    return {**row, "attributes": json.loads(row["attributes"]), "last_seen": row["last_seen_at"]}
