"""Take in a batch of messages: sort, apply per tenant, count, judge.

Nothing here can be stopped by what devices send.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from rollwave import metrics
from rollwave.domain import intake, report
from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.intake import Outcome
from rollwave.domain.report import Report
from rollwave.engine import guard
from rollwave.engine.conductor import Conductor
from rollwave.engine.guard import Stopped
from rollwave.log import get_logger
from rollwave.mqtt.client import Incoming
from rollwave.mqtt.topics import parse_status_topic
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, history, quarantine
from rollwave.store.campaigns import Due, Standing
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.history import FailedAttempt
from rollwave.store.quarantine import Sample

_log = get_logger("listener")

SAMPLES = 5
"""Bad messages of one kind that a batch logs and keeps for a tenant; the rest are counted."""

FIRST_RETRY = 0.1
"""Seconds before a batch is tried again when the database is away; doubled each time, up to 5."""


@dataclass(slots=True)
class Share:
    """One tenant's share of a batch."""

    reports: list[tuple[DeviceId, Report]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


class Intake:
    """Stateless between batches."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._conductor = Conductor(pool, settings)

    async def take_in(self, batch: Sequence[Incoming]) -> list[Due]:
        """Commit what a batch says, trying again for as long as the database is away.

        Returns the campaigns in which every device sent to is terminal now: they may complete, or go on.
        """
        started = time.perf_counter()
        outcomes: Counter[Outcome] = Counter()
        touched: list[Due] = []
        for tenant_id, share in _sort(batch, outcomes).items():
            touched += await self._persist(tenant_id, share, outcomes)
        for each, number in outcomes.items():
            metrics.reports.labels(each.value).inc(number)
        metrics.batch_size.observe(len(batch))
        metrics.batch_seconds.observe(time.perf_counter() - started)
        return touched

    async def conclude(self, touched: Sequence[Due]) -> None:
        """Let such campaigns go on at once instead of at the next tick."""
        for due in touched:
            try:
                await self._conductor.conduct(due)
            except Exception:  # noqa: BLE001  one campaign's error, or one tick's, stops nothing else
                _log.exception("ota_campaign_error", campaign_id=due.campaign_id, tenant_id=due.tenant_id)

    async def _persist(self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome]) -> list[Due]:
        delay = FIRST_RETRY
        while True:
            try:
                return await self._apply(tenant_id, share, outcomes)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                return await self._isolate(tenant_id, share, outcomes, error)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if delay == FIRST_RETRY:
                    _log.error("ota_database_unavailable", tenant_id=tenant_id, error=str(error))
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  no secret depends on it
            delay = min(5.0, delay * 2)

    async def _isolate(
        self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome], error: Exception
    ) -> list[Due]:
        """One value that PostgreSQL refuses must not hold up its neighbours: halve until it is alone.

        Then its words go: a host's column may be narrower than ours. What is refused without any is dropped.
        """
        if len(share.reports) == 1:
            [(device_id, said)] = share.reports
            if said.error:
                shorter = replace(said, error=said.error[: len(said.error) // 2] or None)
                return await self._persist(tenant_id, Share([(device_id, shorter)], share.samples), outcomes)
        if len(share.reports) <= 1:
            _log.error("ota_status_invalid_data", tenant_id=tenant_id, error=type(error).__name__)
            outcomes[Outcome.INVALID] += len(share.reports)
            return []
        middle = len(share.reports) // 2
        first = await self._persist(tenant_id, Share(share.reports[:middle], share.samples), outcomes)
        return first + await self._persist(tenant_id, Share(share.reports[middle:]), outcomes)

    async def _apply(self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome]) -> list[Due]:
        seen: Counter[Outcome] = Counter()
        stopped: list[Stopped] = []
        standings: list[Standing] = []
        rounds = intake.rounds(share.reports)
        seen[Outcome.COALESCED] = len(share.reports) - sum(len(each) for each in rounds)
        async with tenant_transaction(self._pool, tenant_id) as connection:
            for reports in rounds:
                standings += await self._apply_round(connection, tenant_id, reports, seen)
            for standing in standings:
                halt = await guard.judge(connection, tenant_id, standing)
                stopped += [halt] if halt else []
            if share.samples:
                await quarantine.keep(connection, tenant_id, share.samples)
        outcomes.update(seen)
        for each in stopped:
            each.announce()
        return [
            Due(tenant_id, each.campaign_id, each.status)
            for each in standings
            if each.status not in FINAL and each.succeeded + each.failed >= each.sent
        ] + [Due(tenant_id, each.standing.campaign_id, CampaignStatus.ABORTED) for each in stopped]

    async def _apply_round(
        self,
        connection: Connection,
        tenant_id: TenantId,
        reports: Sequence[tuple[DeviceId, Report]],
        seen: Counter[Outcome],
    ) -> list[Standing]:
        effects = await executions.apply_reports(
            connection, tenant_id, reports, patience=self._settings.progress_timeout
        )
        failures = []
        for (device_id, said), effect in zip(reports, effects, strict=True):
            became = intake.outcome(said, was=effect.was, attempt=effect.attempt, applied=effect.applied)
            seen[became] += 1
            if became is Outcome.UNKNOWN and seen[became] <= SAMPLES:
                # A made-up campaign, or another tenant's: row-level security makes the two look alike.
                _log.warning(
                    "ota_status_unknown", tenant_id=tenant_id, device_id=device_id, campaign_id=said.campaign_id
                )
            if became is Outcome.APPLIED and said.status is ExecutionStatus.FAILED:
                reason = said.error or "the device gave no reason"
                failures.append(FailedAttempt(said.campaign_id, device_id, effect.attempt or 1, reason, "device"))
        await history.append_failed_attempts(connection, tenant_id, failures)
        tallies = intake.tally(reports, (effect.applied for effect in effects))
        if not tallies:
            return []
        moves = [(CampaignId(each), won, lost) for each, (won, lost) in sorted(tallies.items())]
        return await campaigns.count(connection, tenant_id, moves)


def _sort(batch: Sequence[Incoming], outcomes: Counter[Outcome]) -> dict[TenantId, Share]:
    """Who said what. What is no report is counted here, and a few of each kind are logged and kept."""
    shares: dict[TenantId, Share] = defaultdict(Share)
    for incoming in batch:
        source = parse_status_topic(incoming.topic)
        if incoming.retain:
            outcomes[Outcome.RETAINED] += 1
        elif source is None:
            _reject(Outcome.BAD_TOPIC, outcomes, topic=incoming.topic[:200])
        else:
            tenant_id, device_id = source
            said = report.parse(incoming.payload)
            if isinstance(said, Report):
                shares[tenant_id].reports.append((device_id, said))
            elif isinstance(said, report.Rejected):
                kind = Outcome.BAD_PAYLOAD if said.undecodable else Outcome.INVALID
                _reject(kind, outcomes, tenant_id=tenant_id, device_id=device_id, reason=said.reason)
                if len(shares[tenant_id].samples) < SAMPLES:
                    shares[tenant_id].samples.append(Sample(device_id, said.reason, incoming.payload))
            else:
                outcomes[Outcome.EMPTY] += 1
    return shares


def _reject(kind: Outcome, outcomes: Counter[Outcome], **fields: object) -> None:
    outcomes[kind] += 1
    if outcomes[kind] <= SAMPLES:
        _log.warning(f"ota_status_{kind.value}", **fields)
