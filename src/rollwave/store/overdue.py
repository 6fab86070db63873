"""Ends attempts: locks overdue executions, and sets the delay before the next attempt or fails the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus, Place
from rollwave.domain.ids import DeviceId
from rollwave.domain.retry import Reason
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load
from rollwave.store.standing import ClosedSegment

_sql = load("overdue")


@dataclass(frozen=True, slots=True)
class Overdue:
    """An execution in progress whose deadline has passed. ``heard``: the device has reported in this attempt.

    ``failed_for``: the reason if the attempt has already failed and another one was to follow. ``finished``: it had
    finished, and a host's worker has overwritten it. ``place``: its place, under a policy document.
    ``code``: of its last failed attempt, if the device reported one. ``failed_before``: its failures that a retry by an
    operator followed.
    """

    device_id: DeviceId
    status: ExecutionStatus
    attempt: int
    heard: bool
    failed_for: Reason | None
    out_of_time: bool
    finished: bool = False
    place: Place | None = None
    code: str | None = None
    failed_before: Sequence[str] = ()


async def bring_forward(connection: Connection, campaign: Campaign, *, longest: float, progress_timeout: float) -> None:
    """Correct rows that are due later than ``longest`` seconds from now, since the database's clock was set back.

    A device in progress then has ``progress_timeout`` seconds. Not applied: another transaction has locked the row.
    """
    await connection.execute(_sql["bring_forward"], campaign.tenant_id, campaign.id, longest, progress_timeout)


async def lock_overdue(
    connection: Connection,
    campaign: Campaign,
    *,
    everyone: bool,
    device_timeout: float,
    extension: float = 0.0,
    closed: Sequence[ClosedSegment] = (),
    reported: bool = False,
    limit: int,
) -> list[Overdue]:
    """Lock executions whose deadline has passed. ``everyone``: also those that wait for another attempt.

    ``extension``: seconds by which deadlines are extended beyond ``due_at``. ``closed``: segments whose devices are
    left out, unless ``everyone`` is meant. ``reported``: only devices that have reported that their attempt failed.
    """
    device_timeout += campaign.activity.suspended_for
    rows = await connection.fetch(
        _sql["lock_overdue"],
        campaign.tenant_id,
        campaign.id,
        everyone,
        device_timeout,
        limit,
        extension,
        [each.number for each in closed],
        reported,
    )
    return [
        Overdue(
            *(device_id, ExecutionStatus(status), attempt, heard, Reason(why) if why else None, out_of_time, finished),
            Place.read(*place),
            code,
            failed_before or (),
        )
        for device_id, status, attempt, heard, why, out_of_time, finished, *place, code, failed_before in rows
    ]


class Postponed(NamedTuple):
    """A device whose attempt failed for a reason. It may be sent the next one after ``delay`` seconds."""

    device_id: DeviceId
    reason: Reason
    delay: float


class Failed(NamedTuple):
    """A device that failed for good, with the message that an operator reads."""

    device_id: DeviceId
    reason: Reason
    message: str


async def postpone(
    connection: Connection, campaign: Campaign, failed: Sequence[Postponed], *, device_timeout: float
) -> None:
    """End the attempt of each device. The next attempt may follow after its delay.

    The transaction has locked the rows, so every change is applied. If a device's ``device_timeout`` ends before the
    delay, the device is overdue at that time.
    """
    device_timeout += campaign.activity.suspended_for
    rows = [(campaign.tenant_id, campaign.id, *each, device_timeout) for each in failed]
    await connection.executemany(_sql["postpone"], rows)


async def fail(connection: Connection, campaign: Campaign, failed: Sequence[Failed]) -> None:
    """Fail each device for good. The transaction has locked the rows."""
    await connection.executemany(_sql["fail"], [(campaign.tenant_id, campaign.id, *each) for each in failed])
