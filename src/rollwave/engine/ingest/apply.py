"""Apply the reports of one tenant in one transaction: executions, counters, events and guardrails."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from rollwave.domain.campaign import FINAL, CampaignRef
from rollwave.domain.events import DEVICE, AttemptFailed, Entry
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports import coalesce, outcome
from rollwave.domain.reports.outcome import Outcome, Tally
from rollwave.domain.reports.parse import Report
from rollwave.domain.retry import Reason
from rollwave.engine import stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.ingest.classify import Classifier, Share, UnsentReports
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.stop import Stopped
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, events, executions, quarantine
from rollwave.store.campaigns import Standing
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Effect, Times

_log = get_logger("listener")

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 5.0
"""Seconds before a batch that could not be written is tried again, doubled from the first to the last."""


def pauses() -> Iterator[float]:
    """Seconds to wait after each failed try."""
    delay = FIRST_RETRY_SECONDS
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it
        delay = min(LAST_RETRY_SECONDS, delay * 2)


def times_of(settings: Settings) -> Times:
    """What a device that has reported gets, where its campaign says nothing else."""
    return Times(settings.progress_timeout, settings.progress_timeout, settings.device_timeout)


def touched(tenant_id: TenantId, standings: Sequence[Standing], stopped: Collection[Stopped]) -> list[CampaignRef]:
    """The campaigns in which every device sent to is terminal now, but for those just stopped."""
    over = {each.standing.campaign_id for each in stopped if each.tenant_id == tenant_id}
    return [
        CampaignRef(tenant_id, each.campaign_id, each.status)
        for each in standings
        if each.status not in FINAL and each.campaign_id not in over and each.succeeded + each.failed >= each.sent
    ]


class TenantTransaction:
    """Applies shares of a batch, each in a transaction of its tenant's own."""

    def __init__(self, pool: Pool, settings: Settings, classifier: Classifier, unsent: UnsentReports) -> None:
        self._pool = pool
        self._settings = settings
        self._classifier = classifier
        self._unsent = unsent

    async def apply(
        self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome], *, checks_at_once: bool = False
    ) -> list[CampaignRef]:
        """Commit one tenant's share of a batch in one transaction, and count its ``outcomes`` once it is committed.

        Returns the campaigns in which every device sent to is terminal now. ``checks_at_once``: deferred constraints
        are checked by each statement, not by the commit.

        Raises:
            ValueRefused: PostgreSQL does not take a value of one of the reports.
        """
        seen: Counter[Outcome] = Counter()
        stopped: list[Stopped] = []
        tally: Tally = Counter()
        failures: list[Entry[AttemptFailed]] = []
        steps = coalesce.one_per_execution(share.reports)
        seen[Outcome.COALESCED] = len(share.reports) - sum(len(each) for each in steps)
        async with tenant_transaction(
            self._pool, tenant_id, generic_plans=True, checks_at_once=checks_at_once
        ) as connection:
            for reports in steps:
                moved, failed = await self._apply_one_per_execution(connection, tenant_id, reports, seen)
                tally.update(moved)
                failures += failed
            await reach(Failpoint.REPORTS_APPLIED)
            ended = outcome.ended(tally)
            counted = await campaigns.count(
                connection, tenant_id, tally, also={CampaignId(each.campaign_id) for each in failures}
            )
            standings = [each for each in counted if each.campaign_id in ended]
            await events.append_failed_attempts(connection, tenant_id, failures)
            for standing in standings:
                halt = await stop.judge(connection, tenant_id, standing)
                stopped += [halt] if halt else []
            if share.samples:
                await quarantine.keep(connection, tenant_id, share.samples)
            await reach(Failpoint.REPORTS_WRITTEN)
        outcomes.update(seen)
        for each in stopped:
            each.announce()
        return touched(tenant_id, standings, stopped)

    async def _apply_one_per_execution(
        self,
        connection: Connection,
        tenant_id: TenantId,
        reports: Sequence[tuple[DeviceId, Report]],
        seen: Counter[Outcome],
    ) -> tuple[Tally, list[Entry[AttemptFailed]]]:
        """Apply at most one report per execution; returns what moved, and the attempts that failed."""
        settings = self._settings
        began = time.monotonic()
        effects = await executions.apply_reports(
            connection, tenant_id, reports, times_of(settings), max_attempts=settings.max_attempts
        )
        failures: list[Entry[AttemptFailed]] = []
        for (device_id, said), effect in zip(reports, effects, strict=True):
            became = outcome.outcome(said, was=effect.was, attempt=effect.attempt, applied=effect.applied)
            seen[became] += 1
            if effect.applied and effect.patience is not None:
                self._classifier.wrote(tenant_id, device_id, said, at=began, patience=effect.patience)
            if became is Outcome.UNKNOWN and self._classifier.may_log(became):
                # A made-up campaign, or another tenant's: row-level security makes the two look alike.
                _log.warning(
                    "ota_status_unknown", tenant_id=tenant_id, device_id=device_id, campaign_id=said.campaign_id
                )
            if became is Outcome.NOT_SENT:
                self._unsent.note(tenant_id, device_id, said)
            if effect.applied and said.status is ExecutionStatus.FAILED:
                failures.append(_failed_attempt(device_id, said, effect))
        await self._postpone(connection, tenant_id, [each for each in failures if not each.event.final])
        moved = outcome.tally(
            (said.campaign_id, effect.was, effect.became) for (_, said), effect in zip(reports, effects, strict=True)
        )
        return moved, failures

    async def _postpone(
        self, connection: Connection, tenant_id: TenantId, retried: Sequence[Entry[AttemptFailed]]
    ) -> None:
        """Set the delay of each device that gets another attempt, by its campaign's policy."""
        for campaign_id in {each.campaign_id for each in retried}:
            campaign = await campaigns.get(connection, tenant_id, campaign_id)
            # One whose policy cannot be read is about to be paused; the device just must not be lost.
            policy = under_policy(campaign, self._settings).policy
            delays = []
            for each in retried:
                if each.campaign_id == campaign_id and each.event.cause is not None:
                    luck = random.random()  # noqa: S311  spreads load only
                    delay = policy.retry.delay_of(each.event.attempt, luck=luck)
                    delays.append((DeviceId(each.event.device_id), each.event.cause, delay))
            await executions.postpone(connection, campaign, delays, in_all=policy.device_timeout)


def _failed_attempt(device_id: DeviceId, said: Report, effect: Effect) -> Entry[AttemptFailed]:
    failed = AttemptFailed(
        effect.attempt or 1,
        said.error or "the device gave no reason",
        effect.reason or Reason.REPORTED,
        final=not effect.retried,
        device_id=device_id,
    )
    return Entry(said.campaign_id, failed, DEVICE)
