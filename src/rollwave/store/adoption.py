"""Execution rows that a host's own worker left in progress, or wrote over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import DeviceId
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("adoption")


class Adopted(NamedTuple):
    """A device that a host's earlier worker left in progress: what it ``was``, and what it ``became``.

    ``SKIPPED`` it was if the engine had skipped it before the worker sent to it.
    ``failed_before``: that this attempt has failed is in history already.
    """

    device_id: DeviceId
    was: ExecutionStatus
    became: ExecutionStatus
    attempt: int
    error: str
    failed_before: bool


async def adopt(
    connection: Connection, campaign: Campaign, *, progress_timeout: float, limit: int, skipped: Sequence[str]
) -> list[Adopted]:
    """Take over up to ``limit`` rows that a host's earlier worker left in progress.

    Each has ``progress_timeout`` seconds for a report, and its whole time begins now. One that had finished before
    ends so, unless its error is one for which the engine ``skipped`` it: that one has been sent to since. Needs the
    campaign's lock.
    """
    rows = await connection.fetch(_sql["adopt"], campaign.tenant_id, campaign.id, progress_timeout, limit, skipped)
    return [
        Adopted(device_id, ExecutionStatus(was), ExecutionStatus(became), attempt, error or "", failed_before)
        for device_id, was, became, attempt, error, failed_before in rows
    ]


async def any_left_behind(connection: Connection, campaign: Campaign) -> bool:
    """Whether a host's earlier worker left rows in progress that :func:`adopt` has not taken over yet."""
    return await connection.fetchval(_sql["any_left_behind"], campaign.tenant_id, campaign.id) is not None


async def leave(connection: Connection, campaign: Campaign, devices: Sequence[DeviceId]) -> None:
    """Leave devices that had finished, and are overdue, to :func:`adopt`. Their rows are held."""
    await connection.execute(_sql["leave"], campaign.tenant_id, campaign.id, devices)
