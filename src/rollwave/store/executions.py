"""Execution rows: claimed, marked, moved by reports, failed when silent, skipped. Every write is guarded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import UNADDRESSABLE, UNSENDABLE, CampaignId, DeviceId
from rollwave.domain.refusal import LONGEST_REFUSAL_SECONDS, Refusal
from rollwave.domain.reports.parse import Report
from rollwave.domain.reports.throttle import LEEWAY
from rollwave.domain.retry import Reason
from rollwave.store.campaigns import Campaign
from rollwave.store.database import IN_TURN, Connection
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("executions")

STATUS = dict(ExecutionStatus.__members__)
"""A state by its word; a host's table may hold others."""

_REASON = {each.value: each for each in Reason}  # a look here costs a fifth of making one of its word


class Claimed(NamedTuple):
    """One command to send: this device, under this attempt, before the lease ends.

    ``suspect``: the broker has ended the connection over it before.
    """

    device_id: DeviceId
    attempt: int
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claiming statement took. ``skipped`` devices cannot be addressed."""

    commands: tuple[Claimed, ...]
    skipped: int

    @property
    def any(self) -> bool:
        """Whether it took anything."""
        return bool(self.commands or self.skipped)


class Effect(NamedTuple):
    """What one report met and did.

    ``was`` and ``attempt`` are the execution's before it (None: no such row, or in a state that is not ours);
    ``became`` is its state after it (None: the report changed nothing). ``reason`` names the failure if it is one.
    ``retried``: it failed an attempt and another one is to follow. ``patience``: seconds of silence that its campaign
    allows from here (None: no such row).
    """

    was: ExecutionStatus | None
    became: ExecutionStatus | None
    attempt: int | None
    reason: Reason | None
    retried: bool
    patience: float | None

    @property
    def applied(self) -> bool:
        """Whether the report changed the execution."""
        return self.became is not None


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that devices get: for a first word, from word to word, and in all.

    ``suspended_for``: seconds for which their campaign was suspended before; they do not count.
    """

    answer: float
    patience: float
    in_all: float
    suspended_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Overdue:
    """An execution in progress whose deadline has passed; ``heard``: the device said a word in this attempt.

    ``failed_for``: why the attempt has failed already, if it has; another was to follow. ``finished``: it had finished,
    and a host's worker wrote over it.
    """

    device_id: DeviceId
    status: ExecutionStatus
    attempt: int
    heard: bool
    failed_for: Reason | None
    out_of_time: bool
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Doing:
    """A command that a device has been sent, and the seconds left until its deadline. None: it has nothing to do."""

    body: bytes
    attempt: int | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a campaign has left: devices ``waiting`` for their first command, ``open`` ones, ``any`` at all.

    ``due_in`` is the seconds until the first lease, deadline or delay of an open one ends; None: there is none.
    """

    waiting: bool
    open: bool
    any: bool
    due_in: float | None = field(default=None, compare=False)

    @property
    def finished(self) -> bool:
        """Every device is terminal. A campaign without devices is not finished: they may be about to come."""
        return self.any and not self.waiting and not self.open


async def claim(
    connection: Connection,
    campaign: Campaign,
    *,
    tokens: int,
    fresh: int,
    lease: float,
    in_all: float,
    opens_window: bool,
    command: str,
) -> Claim:
    """Take up to ``tokens`` commands, at most ``fresh`` of them for new devices, for ``lease`` seconds.

    A device whose time ``in_all`` is over gets no other attempt. What was taken is spent: out of the window, which the
    first of them opens if it is a new one; the campaign's first claim of all also freezes its ``command``. Needs the
    campaign's lock.
    """
    rows = await connection.fetch(
        _sql["claim"],
        *(campaign.tenant_id, campaign.id, tokens, fresh, lease, UNADDRESSABLE, UNSENDABLE),
        in_all + campaign.activity.suspended_for,
        *(opens_window, command),
    )
    commands = tuple(Claimed(device_id, attempt, suspect) for device_id, attempt, suspect in rows if attempt)
    return Claim(commands, skipped=len(rows) - len(commands))


async def mark_sent(
    connection: Connection, tenant_id: str, campaign_id: int, sent: Sequence[Claimed], times: Times
) -> None:
    """Record that the broker acknowledged these.

    Not applied, which is no error: the device has reported already, the campaign was stopped after the lease had ended,
    or another worker was sooner.
    """
    before = times.suspended_for
    await connection.execute(
        _sql["mark_sent"], tenant_id, campaign_id, *_columns(sent), times.answer, times.in_all + before, before
    )


async def release(
    connection: Connection,
    tenant_id: str,
    campaign_id: int,
    unsent: Sequence[Claimed],
    *,
    delay: float,
    refusal: Refusal | None,
) -> None:
    """Give back what the broker did not take; it may be claimed again after ``delay`` seconds, same attempt.

    The delay doubles with each ``refusal``. Not applied: the lease had ended, and another worker has the device now.
    """
    await connection.execute(
        _sql["release"], tenant_id, campaign_id, *_columns(unsent), delay, refusal, LONGEST_REFUSAL_SECONDS
    )


async def apply_reports(
    connection: Connection,
    tenant_id: str,
    reports: Sequence[tuple[DeviceId, Report]],
    times: Times,
    *,
    max_attempts: int,
) -> list[Effect]:
    """Take in at most one report a device and campaign; returns what each met and did, in the same order.

    ``times`` and ``max_attempts`` are for campaigns that name none of their own.

    Raises:
        ValueRefused: PostgreSQL does not take a value of one of the reports.
    """
    columns = (
        [report.campaign_id for _, report in reports],
        [device_id for device_id, _ in reports],
        [report.status for _, report in reports],
        [report.progress for _, report in reports],
        [report.error for _, report in reports],
        [report.attempt for _, report in reports],
    )
    with refusing_values():
        rows = await connection.fetch(
            _sql["apply_reports"], tenant_id, *columns, times.patience, times.in_all, max_attempts, 1 + LEEWAY
        )
    return [
        Effect(STATUS.get(was), STATUS.get(became), attempt, _REASON.get(reason), retried, patience)
        for was, became, attempt, reason, retried, patience in rows
    ]


async def bring_forward(connection: Connection, campaign: Campaign, *, longest: float, patience: float) -> None:
    """Set right what is due later than ``longest`` seconds from now, as the database's clock was set back."""
    await connection.execute(_sql["bring_forward"], campaign.tenant_id, campaign.id, longest, patience)


async def lock_overdue(
    connection: Connection, campaign: Campaign, *, everyone: bool, in_all: float, extension: float = 0.0, limit: int
) -> list[Overdue]:
    """Hold executions whose deadline has passed; ``everyone``: also those that wait for another attempt.

    ``extension``: seconds by which deadlines are later than their rows say.
    """
    in_all += campaign.activity.suspended_for
    rows = await connection.fetch(
        _sql["hold_overdue"], campaign.tenant_id, campaign.id, everyone, in_all, limit, extension
    )
    return [
        Overdue(device_id, ExecutionStatus(status), attempt, heard, Reason(why) if why else None, out_of_time, finished)
        for device_id, status, attempt, heard, why, out_of_time, finished in rows
    ]


async def postpone(
    connection: Connection, campaign: Campaign, failed: Sequence[tuple[DeviceId, Reason, float]], *, in_all: float
) -> None:
    """End the attempt of each device held, for a reason; the next one may follow after so many seconds.

    Where the time that a device has ``in_all`` ends before that, it is overdue at the end of it.
    """
    in_all += campaign.activity.suspended_for
    rows = [(campaign.tenant_id, campaign.id, *each, in_all) for each in failed]
    await connection.executemany(_sql["postpone"], rows)


async def fail(connection: Connection, campaign: Campaign, failed: Sequence[tuple[DeviceId, Reason, str]]) -> None:
    """Fail each device held, for a reason and with a message."""
    await connection.executemany(_sql["fail"], [(campaign.tenant_id, campaign.id, *each) for each in failed])


async def skip_unsent(
    connection: Connection, tenant_id: str, campaign_id: CampaignId, *, limit: int, reason: str
) -> int:
    """Skip up to about ``limit`` devices that were never sent to; returns how many."""
    await connection.execute(IN_TURN)  # also where a stop comes with a batch of reports
    skipped: int = await connection.fetchval(_sql["skip_unsent"], tenant_id, campaign_id, limit, reason)
    return skipped


async def outlook(connection: Connection, campaign: Campaign) -> Outlook:
    """What the campaign has left to do."""
    row = await connection.fetchrow(_sql["outlook"], campaign.tenant_id, campaign.id)
    assert row is not None  # a SELECT without FROM has one row
    due_in = row["due_in"]
    return Outlook(waiting=row["waiting"], open=due_in is not None, any=row["any"], due_in=due_in)


async def next_due(connection: Connection, campaign: Campaign) -> float | None:
    """Seconds until the first lease, deadline or delay of the campaign ends, negative once it has; None: none runs."""
    seconds: float | None = await connection.fetchval(_sql["next_due"], campaign.tenant_id, campaign.id)
    return seconds


async def in_flight(connection: Connection, campaign: Campaign, *, up_to: int) -> int:
    """Devices sent to or being sent to and not terminal, counted no further than ``up_to``."""
    flying: int = await connection.fetchval(_sql["in_flight"], campaign.tenant_id, campaign.id, up_to)
    return flying


async def any_taken(connection: Connection, tenant_id: str, campaign_id: int) -> bool:
    """Whether the broker has ever taken the campaign's command for one of its devices."""
    return bool(await connection.fetchval(_sql["any_taken"], tenant_id, campaign_id))


async def count_pending(connection: Connection, tenant_id: str, campaign_id: int) -> int:
    """Devices that are PENDING; of a campaign not counted yet, those never sent to, counted up to ten thousand."""
    pending: int = await connection.fetchval(_sql["count_pending"], tenant_id, campaign_id)
    return pending


async def current(connection: Connection, tenant_id: str, device_ids: Sequence[DeviceId]) -> dict[DeviceId, Doing]:
    """What each device should be doing now; one with nothing to do is left out."""
    rows = await connection.fetch(_sql["current"], tenant_id, device_ids)
    return {row["device_id"]: Doing(row["command"].encode(), row["attempt"], row["seconds_left"]) for row in rows}


def _columns(claimed: Sequence[Claimed]) -> tuple[list[str], list[int]]:
    return [each.device_id for each in claimed], [each.attempt for each in claimed]
