"""Reads the states of all devices of a campaign in dispatch order."""

from __future__ import annotations

from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.overview.field import CODES, Field
from rollwave.errors import NotFound
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import STATUS
from rollwave.store.queries import load
from rollwave.store.views import require

_sql = load("field")

SECONDS = 20.0
"""Maximum time for the statement. A million devices take 0.6 s when the server's disks and processors are idle."""

# The rows are sorted in memory: 70 MB for a million. A setting of the session may be lower, and would sort on disk.
_WORK_MEMORY = "SET LOCAL work_mem = '128MB'"
_TO_CODES = bytes.maketrans(b"012345", bytes(CODES.values()))


class DeviceAt(NamedTuple):
    """A device of the field."""

    device_id: str
    status: ExecutionStatus


async def read(pool: Pool, tenant_id: str, campaign_id: int) -> Field:
    """The field of a campaign now.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id, timeout=SECONDS) as connection:
        await require(connection, tenant_id, campaign_id)
        await connection.execute(_WORK_MEMORY)
        row = await connection.fetchrow(_sql["field"], tenant_id, campaign_id)
    assert row is not None  # an aggregate has one row
    generation = f"{row['devices']}-{row['generation'] & 0xFFFF_FFFF_FFFF_FFFF:016x}"
    return Field(generation, row["read_at"], row["states"].encode().translate(_TO_CODES))


async def device_at(pool: Pool, tenant_id: str, campaign_id: int, index: int) -> DeviceAt:
    """The device at an index of the field, from 0.

    Raises:
        NotFound: this tenant has no such campaign, or the campaign has fewer devices.
    """
    async with tenant_transaction(pool, tenant_id, timeout=SECONDS) as connection:
        await require(connection, tenant_id, campaign_id)
        await connection.execute(_WORK_MEMORY)
        row = await connection.fetchrow(_sql["device"], tenant_id, campaign_id, index)
    if row is None:
        raise NotFound(
            f"campaign {campaign_id} has no device at index {index}",
            hint="Indexes begin at 0; the number of devices is the length of the field.",
        )
    return DeviceAt(row["device_id"], STATUS.get(row["status"], ExecutionStatus.SKIPPED))
