"""Reads the last failures of a campaign with the labels of their devices, and the labels of devices that succeeded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rollwave.domain.overview.causes import Failure
from rollwave.store import device_labels
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("causes")

MAX_SCANNED = 100_000
"""Maximum number of executions that are read to find the last failures, or a sample of devices that succeeded."""


class Failures(NamedTuple):
    """The last failures, and the number of failed devices that were looked at (at most ``MAX_SCANNED``)."""

    last: Sequence[Failure]
    failed: int


async def failures(
    connection: Connection, tenant_id: str, campaign_id: int, *, limit: int, with_labels: bool = True
) -> Failures:
    """The ``limit`` devices that failed last, with their labels and the versions that they last reported.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    rows = await connection.fetch(_sql["failed"], tenant_id, campaign_id, MAX_SCANNED, limit)
    device_ids = [row["device_id"] for row in rows] if with_labels else []
    found = await device_labels.read(connection, tenant_id, device_ids)
    last = []
    for row in rows:
        device = found.get(row["device_id"], device_labels.NONE)
        last.append(Failure(row["error_code"], row["failed_reason"], row["error_message"], device.version, device.of))
    return Failures(last, rows[0]["failed"] if rows else 0)


async def labels_of_succeeded(
    connection: Connection, tenant_id: str, campaign_id: int, *, limit: int
) -> list[dict[str, str]]:
    """The labels of a sample of at most ``limit`` devices that succeeded.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    rows = await connection.fetch(_sql["succeeded"], tenant_id, campaign_id, MAX_SCANNED, limit)
    found = await device_labels.read(connection, tenant_id, [row["device_id"] for row in rows])
    return [each.of for each in found.values()]
