"""A bounded sample of what devices sent and could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("quarantine")

MAX_PAYLOAD = 4096
MAX_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """One message that was turned away, and why. ``payload`` is cut to 4 KB when it is kept."""

    device_id: str
    reason: str
    payload: bytes


async def keep(connection: Connection, tenant_id: str, samples: Sequence[Sample]) -> None:
    """Keep ``samples``, and no more than ``MAX_ROWS`` a tenant in all. Unknown tenants' are dropped."""
    await connection.execute(
        _sql["keep"],
        tenant_id,
        [each.device_id for each in samples],
        [each.reason for each in samples],
        [each.payload[:MAX_PAYLOAD] for each in samples],
        MAX_ROWS,
    )
