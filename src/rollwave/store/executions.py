"""Execution rows: claiming, marking as sent, releasing, applying reports, skipping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from rollwave.domain.broker_refusal import LONGEST_REFUSAL_SECONDS, Refusal
from rollwave.domain.execution import LEEWAY, Cell, ExecutionStatus, Place
from rollwave.domain.ids import UNADDRESSABLE, UNSENDABLE, CampaignId, DeviceId
from rollwave.domain.policy.facts import PaceClaim
from rollwave.domain.reports.parse import DeviceReport
from rollwave.domain.retry import Reason
from rollwave.store import cells
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import IN_TURN, Connection
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("executions")

STATUS = dict(ExecutionStatus.__members__)
"""The states by their stored values. A host's table may contain other values."""

_REASON = {each.value: each for each in Reason}  # a look-up costs a fifth of calling the enumeration


class Claimed(NamedTuple):
    """One command to send before the lease ends: the device and the attempt.

    ``suspect``: the broker has ended the connection because of this device's command before.
    """

    device_id: DeviceId
    attempt: int
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The devices that a statement claimed. ``skipped``: those that cannot be addressed.

    ``segments``: of all that get a command, under a policy document; ``placed``: the columns of their places.
    """

    commands: tuple[Claimed, ...]
    skipped: int
    segments: frozenset[int] = frozenset()
    placed: Sequence[asyncpg.Record] = ()

    @property
    def dispatched(self) -> Iterator[Place]:
        """The places of devices that get their first command, under a policy document. Made only for rules that ask."""
        places = (Place.read(*columns) for _, _, _, *columns in self.placed)
        return (each for each in places if each is not None)

    @property
    def any(self) -> bool:
        """Whether it claimed or skipped any device."""
        return bool(self.commands or self.skipped)


class ClaimQueue(NamedTuple):
    """The cells from which a claim may take devices for their first command, each with its room, in their turn.

    ``advance``, ``age`` and ``carried``: of the pace's step that the claim begins (``domain.policy.pace.Step``), if it
    begins one. ``recent``: the claims of the last tick, which the pace counts too; None: there is no pace. ``only``:
    the devices that the policy's budgets allow; None: it has none. ``zones``: devices of segments of these time zones
    may be sent to again; None: of every zone. Those of segments under quarantine, and those that are not placed, may
    not.
    """

    rooms: Mapping[Cell, int]
    advance: float | None = None
    age: float = 0.0
    carried: float = 0.0
    recent: Sequence[PaceClaim] | None = None
    only: Sequence[str] | None = None
    zones: Sequence[str | None] | None = None


class Effect(NamedTuple):
    """The effect of one report.

    ``was`` and ``attempt``: the execution before it (None: no such row, or a status value that the engine does not
    know). ``became``: its state after it (None: the report changed nothing). ``reason``: the reason if it is a failure.
    ``retried``: the attempt failed and another one follows. ``progress_timeout``: the campaign's, in seconds (None: no
    such row). ``segment`` to ``budget_values``: the columns of the device's place. ``failed_before``: its failures that
    a retry by an operator followed.
    """

    was: ExecutionStatus | None
    became: ExecutionStatus | None
    attempt: int | None
    reason: Reason | None
    retried: bool
    progress_timeout: float | None
    segment: int | None = None
    position: int | None = None
    dispatch_number: int | None = None
    budget_values: Sequence[str | None] | None = None
    failed_before: Sequence[str] | None = None

    @property
    def applied(self) -> bool:
        """Whether the report changed the execution."""
        return self.became is not None

    @property
    def place(self) -> Place | None:
        """The place of the device, under a policy document."""
        return Place.read(self.segment, self.position, self.dispatch_number, self.budget_values)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that a device has until its first report, between two reports, and in all.

    ``suspended_for``: seconds for which its campaign was suspended before, which do not count.
    """

    answer_timeout: float
    progress_timeout: float
    device_timeout: float
    suspended_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Doing:
    """The present command of a device, and the seconds left until its deadline. None: the device has nothing to do.

    ``segment``: that of the device by the ``revision`` of its campaign's policy document; None: flat columns.
    """

    body: bytes
    attempt: int | None
    seconds_left: float | None
    campaign_id: CampaignId | None
    segment: int = 0
    revision: int | None = None


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
    queue: ClaimQueue | None = None,
) -> Claim:
    """Claim up to ``tokens`` devices for ``lease`` seconds, at most ``fresh`` of them for their first command.

    A device whose ``device_timeout`` is over gets no other attempt. Claimed devices count in the pace's interval;
    ``opens_interval``: the claim begins a new one. The campaign's first claim also stores its ``command``. Rows that
    another transaction has locked are left out. ``queue``: which devices may be sent to, under a policy document; None:
    the campaign has flat columns. Needs the campaign's lock.
    """
    placed = queue is not None
    queue = queue or ClaimQueue({Cell(-1, 0): fresh})
    rows = await connection.fetch(
        _sql["claim"],
        *(campaign.tenant_id, campaign.id, tokens, fresh, lease, UNADDRESSABLE, UNSENDABLE),
        device_timeout + campaign.activity.suspended_for,
        *(opens_interval, command),
        *(
            [each.segment for each in queue.rooms],
            list(queue.rooms.values()),
            [each.wave for each in queue.rooms],
            placed,
        ),
        *(queue.advance, queue.age, queue.carried, cells.named(queue.zones), queue.only, cells.has_none(queue.zones)),
        None if queue.recent is None else [float(value) for each in queue.recent for value in each],
    )
    commands = tuple(Claimed(device_id, attempt, suspect) for device_id, attempt, suspect, *_ in rows if attempt)
    if not placed:
        return Claim(commands, len(rows) - len(commands))
    segments = frozenset(segment for _, attempt, _, segment, *_ in rows if attempt and segment)
    return Claim(commands, len(rows) - len(commands), segments, rows)


async def mark_sent(
    connection: Connection, tenant_id: str, campaign_id: int, sent: Sequence[Claimed], times: Times
) -> None:
    """Record that the broker acknowledged these commands.

    Not applied, which is no error: the device has already reported, the campaign was stopped after the lease had ended,
    or another worker was first.
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
    """Release devices whose command the broker did not accept. They may be claimed again after ``delay`` seconds.

    The attempt stays the same. The delay doubles with each ``refusal``. Not applied: the lease had ended, and another
    worker has the device now.
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
    """Apply at most one report per device and campaign. Returns the effect of each, in the same order.

    Not applied (``Effect.became`` is None): the execution is as far or further, is terminal, is in another attempt, or
    was never sent to.

    ``times`` and ``max_attempts`` are for campaigns that do not set their own.

    Raises:
        ValueRefused: PostgreSQL refuses a value of one of the reports.
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
            [report.code for _, report in reports],
        )
    status_of, reason_of = STATUS.get, _REASON.get
    return [
        Effect(status_of(was), status_of(became), attempt, reason_of(reason), *others)
        for was, became, attempt, reason, *others in rows
    ]


async def skip_unsent(
    connection: Connection, tenant_id: str, campaign_id: CampaignId, *, limit: int, reason: str
) -> int:
    """Skip devices that were never sent to: about ``limit``, at most three times as many. Returns their number."""
    await connection.execute(IN_TURN)  # also if a stop happens together with a batch of reports
    rows = await connection.fetch(_sql["skip_unsent"], tenant_id, campaign_id, limit, reason)
    await cells.skip(connection, tenant_id, campaign_id, [cells.Skipped(*row) for row in rows if row["segment"]])
    return sum(row["devices"] for row in rows)


async def current(connection: Connection, tenant_id: str, device_ids: Sequence[DeviceId]) -> dict[DeviceId, Doing]:
    """The present command of each device. Devices with nothing to do are left out."""
    rows = await connection.fetch(_sql["current"], tenant_id, device_ids)
    return {
        row["device_id"]: Doing(
            row["command"].encode(),
            row["attempt"],
            row["seconds_left"],
            row["campaign_id"],
            row["segment"],
            row["policy_revision"],
        )
        for row in rows
    }


def _columns(claimed: Sequence[Claimed]) -> tuple[list[str], list[int]]:
    return [each.device_id for each in claimed], [each.attempt for each in claimed]
