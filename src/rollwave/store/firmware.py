"""Firmware versions of a tenant."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

from rollwave.domain.firmware import read_checksum
from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.moments import Document, with_moments
from rollwave.store.page import Page, page
from rollwave.store.queries import load
from rollwave.store.rejected_values import Written, fields, refusing

_sql = load("firmware")


class Registered(NamedTuple):
    """A firmware version's row, and whether this request registered it."""

    row: Document
    is_new: bool


async def register(
    pool: Pool,
    tenant_id: str,
    *,
    version: str,
    file_url: str,
    checksum_sha256: str | None,
    file_size_bytes: int | None,
    device_type: str | None,
    description: str | None,
    actor: str,
) -> Registered:
    """Register a firmware version. Registering the same values again changes nothing.

    Raises:
        Conflict: the version is already registered for this device type with other values, or a host's own table
            refuses the row.
        InvalidInput: a value does not fit a host's own column.
    """
    given = (version, file_url, checksum_sha256, file_size_bytes, device_type, description)
    written = fields(
        "firmware_versions",
        version=version,
        file_url=file_url,
        checksum_sha256=checksum_sha256,
        file_size_bytes=file_size_bytes,
        device_type=device_type,
        description=description,
    )
    written.append(Written("firmware_versions", "created_by", [actor]))
    async with refusing(pool, written), tenant_transaction(pool, tenant_id) as connection:
        await connection.execute(_sql["lock_version"], tenant_id, version, device_type)
        row = await connection.fetchrow(_sql["insert"], tenant_id, *given, actor)
        if row is not None:
            return Registered(with_moments(row), is_new=True)
        found = [
            with_moments(each) for each in await connection.fetch(_sql["of_version"], tenant_id, version, device_type)
        ]
    wanted = {
        "file_url": file_url,
        "checksum_sha256": checksum_sha256,
        "file_size_bytes": file_size_bytes,
        "description": description,
    }
    differing = [_differing(each, wanted) for each in found]
    if [] in differing:
        return Registered(found[differing.index([])], is_new=False)
    raise _taken(version, device_type, found, differing)


def _differing(row: Document, wanted: Document) -> list[str]:
    """Names of the values that differ. A host may store no value as an empty text, and a checksum in another form."""
    try:
        checksum = read_checksum(row["checksum_sha256"])
    except InvalidInput:
        checksum = row["checksum_sha256"]
    stored = row | {"checksum_sha256": checksum}
    return [
        name
        for name, value in wanted.items()
        if (None if stored[name] == "" else stored[name]) != (None if value == "" else value)
    ]


def _taken(version: str, device_type: str | None, found: list[Document], differing: list[list[str]]) -> Conflict:
    subject = f"version {version}{f' for device type {device_type}' if device_type else ''}"
    if not found:
        return Conflict(
            f"{subject} cannot be registered: a unique key of the table firmware_versions refuses it",
            hint="List the firmware to see what has this version.",
        )
    others = " and another ".join(differing[0])
    return Conflict(
        f"{subject} is registered already, as firmware {found[0]['id']}, with another {others}",
        hint="Give what differs a version of its own, or delete the registered one while no campaign uses it.",
    )


async def get(pool: Pool, tenant_id: str, firmware_id: int) -> Document:
    """One firmware version.

    Raises:
        NotFound: this tenant has no such firmware.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(_sql["get"], tenant_id, firmware_id)
    if row is None:
        raise _missing(firmware_id)
    return with_moments(row)


async def find(pool: Pool, tenant_id: str, *, device_type: str | None, limit: int, cursor: int | None = None) -> Page:
    """A page of firmware versions, newest first. ``device_type`` None: for every type."""
    async with tenant_transaction(pool, tenant_id) as connection:
        records = await connection.fetch(_sql["page"], tenant_id, device_type, cursor, limit + 1)
        total = await connection.fetchval(_sql["total"], tenant_id, device_type)
    return page(records, total, limit=limit, key="id")


async def delete(pool: Pool, tenant_id: str, firmware_id: int) -> None:
    """Delete a firmware version that no campaign uses.

    Raises:
        NotFound: this tenant has no such firmware.
        Conflict: a campaign or a table of the host refers to it.
    """
    in_use = Conflict(
        f"firmware {firmware_id} is used by a campaign",
        hint="Keep it: a campaign's record names the firmware it rolled out.",
    )
    async with refusing(pool):
        try:
            async with tenant_transaction(pool, tenant_id) as connection:
                if await connection.fetchval(_sql["delete"], tenant_id, firmware_id) is not None:
                    return
                if await connection.fetchrow(_sql["get"], tenant_id, firmware_id) is None:
                    raise _missing(firmware_id)
        except asyncpg.ForeignKeyViolationError as error:
            if error.table_name != "ota_campaigns":  # a campaign was created in between
                raise
    raise in_use


def _missing(firmware_id: int) -> NotFound:
    return NotFound(f"no firmware {firmware_id}", hint="List the firmware to see its ids.")
