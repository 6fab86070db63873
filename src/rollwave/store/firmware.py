"""Firmware versions of a tenant."""

from __future__ import annotations

from typing import Any

import asyncpg

from rollwave.errors import Conflict, NotFound
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.page import Page, page
from rollwave.store.queries import load

_sql = load("firmware")


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
) -> dict[str, Any]:
    """Write down a firmware version and return its row."""
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(
            _sql["insert"],
            *(
                tenant_id,
                version,
                file_url,
                checksum_sha256,
                file_size_bytes,
                device_type,
                description,
                actor,
            ),
        )
    return dict(row or {})


async def get(pool: Pool, tenant_id: str, firmware_id: int) -> dict[str, Any]:
    """One firmware version.

    Raises:
        NotFound: this tenant has no such firmware.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(_sql["get"], tenant_id, firmware_id)
    if row is None:
        raise _missing(firmware_id)
    return dict(row)


async def find(pool: Pool, tenant_id: str, *, device_type: str | None, limit: int, cursor: int | None = None) -> Page:
    """Firmware versions, newest first; ``device_type`` None: of every type."""
    async with tenant_transaction(pool, tenant_id) as connection:
        records = await connection.fetch(_sql["page"], tenant_id, device_type, cursor, limit + 1)
        total = await connection.fetchval(_sql["total"], tenant_id, device_type)
    return page(records, total, limit=limit, key="id")


async def delete(pool: Pool, tenant_id: str, firmware_id: int) -> None:
    """Forget a firmware version that no campaign uses.

    Raises:
        NotFound: this tenant has no such firmware.
        Conflict: a campaign uses it.
    """
    in_use = Conflict(
        f"firmware {firmware_id} is used by a campaign",
        hint="Keep it: a campaign's record names the firmware it rolled out.",
    )
    try:
        async with tenant_transaction(pool, tenant_id) as connection:
            if await connection.fetchval(_sql["delete"], tenant_id, firmware_id) is not None:
                return
            if await connection.fetchrow(_sql["get"], tenant_id, firmware_id) is None:
                raise _missing(firmware_id)
    except asyncpg.ForeignKeyViolationError:
        raise in_use from None  # a campaign was created meanwhile
    raise in_use


def _missing(firmware_id: int) -> NotFound:
    return NotFound(f"no firmware {firmware_id}", hint="List the firmware to see its ids.")
