"""Execution rows: claimed, marked, moved by reports, skipped. Every write is guarded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rollwave.domain.broker_refusal import LONGEST_REFUSAL_SECONDS, Refusal
from rollwave.domain.execution import LEEWAY, ExecutionStatus
from rollwave.domain.ids import UNADDRESSABLE, UNSENDABLE, CampaignId, DeviceId
from rollwave.domain.reports.parse import DeviceReport
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
    ``retried``: it failed an attempt and another one is to follow. ``progress_timeout``: seconds of silence that its
    campaign allows from here (None: no such row).
    """

    was: ExecutionStatus | None
    became: ExecutionStatus | None
    attempt: int | None
    reason: Reason | None
    retried: bool
    progress_timeout: float | None

    @property
    def applied(self) -> bool:
        """Whether the report changed the execution."""
        return self.became is not None


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that a device gets until its first report, from report to report, and in all.

    ``suspended_for``: seconds for which its campaign was suspended before; they do not count.
    """

    answer_timeout: float
    progress_timeout: float
    device_timeout: float
    suspended_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Doing:
    """A command that a device has been sent, and the seconds left until its deadline. None: it has nothing to do."""

    body: bytes
    attempt: int | None
    seconds_left: float | None


async def claim(
    connection: Connection,
    campaign: Campaign,
    *,
    tokens: int,
    fresh: int,
    lease: float,
    device_timeout: float,
    opens_interval: bool,
    command: str,
) -> Claim:
    """Take up to ``tokens`` commands, at most ``fresh`` of them for new devices, for ``lease`` seconds.

    A device that was first sent to ``device_timeout`` seconds ago gets no other attempt. The devices taken count
    towards the pace's interval, which begins with them where ``opens_interval``; the campaign's first claim also
    freezes its ``command``. Needs the campaign's lock. Not taken: a row that another transaction holds.
    """
    rows = await connection.fetch(
        _sql["claim"],
        *(campaign.tenant_id, campaign.id, tokens, fresh, lease, UNADDRESSABLE, UNSENDABLE),
        device_timeout + campaign.activity.suspended_for,
        *(opens_interval, command),
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
        _sql["mark_sent"],
        tenant_id,
        campaign_id,
        *_columns(sent),
        times.answer_timeout,
        times.device_timeout + before,
        before,
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
    reports: Sequence[DeviceReport],
    times: Times,
    *,
    max_attempts: int,
) -> list[Effect]:
    """Apply at most one report a device and campaign; returns what each met and did, in the same order.

    Not applied (``Effect.became`` is None): the execution is as far or further, is over, is in another attempt, or was
    never sent to.

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
            _sql["apply_reports"],
            tenant_id,
            *columns,
            times.progress_timeout,
            times.device_timeout,
            max_attempts,
            1 + LEEWAY,
        )
    return [
        Effect(STATUS.get(was), STATUS.get(became), attempt, _REASON.get(reason), retried, progress_timeout)
        for was, became, attempt, reason, retried, progress_timeout in rows
    ]


async def skip_unsent(
    connection: Connection, tenant_id: str, campaign_id: CampaignId, *, limit: int, reason: str
) -> int:
    """Skip up to about ``limit`` devices that were never sent to; returns how many."""
    await connection.execute(IN_TURN)  # also where a stop comes with a batch of reports
    skipped: int = await connection.fetchval(_sql["skip_unsent"], tenant_id, campaign_id, limit, reason)
    return skipped


async def current(connection: Connection, tenant_id: str, device_ids: Sequence[DeviceId]) -> dict[DeviceId, Doing]:
    """What each device should be doing now; one with nothing to do is left out."""
    rows = await connection.fetch(_sql["current"], tenant_id, device_ids)
    return {row["device_id"]: Doing(row["command"].encode(), row["attempt"], row["seconds_left"]) for row in rows}


def _columns(claimed: Sequence[Claimed]) -> tuple[list[str], list[int]]:
    return [each.device_id for each in claimed], [each.attempt for each in claimed]
