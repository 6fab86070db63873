"""Take in a batch of messages: sort, apply per tenant, count, judge.

Nothing here can be stopped by what devices send.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from rollwave import metrics
from rollwave.domain import intake
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.intake import Outcome, Tally
from rollwave.domain.report import Report
from rollwave.domain.retry import Reason
from rollwave.engine import guard, writing
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.guard import Stopped
from rollwave.engine.rules import default_rules, read_rules
from rollwave.engine.sorting import Share, Sorter
from rollwave.engine.together import Together
from rollwave.engine.writing import ABOUT_A_VALUE, pauses
from rollwave.errors import InvalidInput
from rollwave.log import get_logger
from rollwave.mqtt.client import Incoming
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, history, quarantine
from rollwave.store.campaigns import Due
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Effect
from rollwave.store.history import FailedAttempt
from rollwave.store.outage import is_away

_log = get_logger("listener")

AT_ONCE = 4
"""Tenants whose share of a batch is committed at the same time."""


class Intake:
    """Keeps nothing between batches but what its sorter remembers, and need not."""

    def __init__(
        self, pool: Pool, settings: Settings, on_question: Callable[[TenantId, DeviceId], None] | None = None
    ) -> None:
        self._sorter = Sorter(on_question)
        self._pool = pool
        self._settings = settings
        self._together = Together(pool, settings, self._sorter)
        self._turn = asyncio.Lock()

    async def take_in(self, batch: Sequence[Incoming], *, behind: bool = False) -> list[Due]:
        """Commit what a batch says, trying again for as long as the database is away.

        Called for one batch while another is being written, it sorts its messages and waits: what a device said first
        is written first. ``behind``: more comes than can be written, so that what devices merely repeat is left out.
        Returns the campaigns in which every device sent to is terminal now: they may complete, or go on.
        """
        started = time.perf_counter()
        outcomes: Counter[Outcome] = Counter()
        limit = asyncio.Semaphore(AT_ONCE)

        async def persist(tenant_id: TenantId, share: Share) -> list[Due]:
            async with limit:
                return await self._persist(tenant_id, share, outcomes)

        shares = self._sorter.sort(batch, outcomes, behind=behind)
        async with self._turn:
            await reach(Failpoint.PARSED)
            left, touched = await self._together.write(shares, outcomes)
            for dues in await asyncio.gather(*(persist(*each) for each in left.items())):
                touched += dues
        for each, number in outcomes.items():
            metrics.reports.labels(each.value).inc(number)
        metrics.batch_size.observe(len(batch))
        metrics.batch_seconds.observe(time.perf_counter() - started)
        return touched

    async def _persist(self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome]) -> list[Due]:
        told, pause = False, pauses()
        while True:
            try:
                return await self._apply(tenant_id, share, outcomes)
            except ABOUT_A_VALUE as error:
                return await self._isolate(tenant_id, share, outcomes, error)
            except Exception as error:  # noqa: BLE001  see below
                # An outage, or something that is wrong with the database: the reports are not to blame, and stay.
                if not told and not is_away(error):
                    told = True
                    _log.error("ota_reports_delayed", tenant_id=tenant_id, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(next(pause))

    async def _isolate(
        self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome], error: Exception
    ) -> list[Due]:
        """One value that PostgreSQL refuses must not hold up its neighbours: halve until it is alone.

        Then its words go: a host's column may be narrower than ours. What is refused without any is dropped.
        """
        if share.samples:  # they matter least
            return await self._persist(tenant_id, Share(share.reports), outcomes)
        if len(share.reports) == 1:
            [(device_id, said)] = share.reports
            if said.error:
                shorter = replace(said, error=said.error[: len(said.error) // 2] or None)
                return await self._persist(tenant_id, Share([(device_id, shorter)]), outcomes)
        if len(share.reports) <= 1:
            _log.error("ota_status_invalid_data", tenant_id=tenant_id, error=f"{type(error).__name__}: {error}")
            outcomes[Outcome.INVALID] += len(share.reports)
            return []
        middle = len(share.reports) // 2
        first = await self._persist(tenant_id, Share(share.reports[:middle]), outcomes)
        return first + await self._persist(tenant_id, Share(share.reports[middle:]), outcomes)

    async def _apply(self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome]) -> list[Due]:
        seen: Counter[Outcome] = Counter()
        stopped: list[Stopped] = []
        tally: Tally = Counter()
        rounds = intake.rounds(share.reports)
        seen[Outcome.COALESCED] = len(share.reports) - sum(len(each) for each in rounds)
        async with tenant_transaction(self._pool, tenant_id, generic_plans=True) as connection:
            for reports in rounds:
                tally.update(await self._apply_round(connection, tenant_id, reports, seen))
            ended = intake.ended(tally)
            standings = [
                each for each in await campaigns.count(connection, tenant_id, tally) if each.campaign_id in ended
            ]
            for standing in standings:
                halt = await guard.judge(connection, tenant_id, standing)
                stopped += [halt] if halt else []
            if share.samples:
                await quarantine.keep(connection, tenant_id, share.samples)
            await reach(Failpoint.REPORTS_WRITTEN)
        outcomes.update(seen)
        for each in stopped:
            each.announce()
        return writing.touched(tenant_id, standings, stopped)

    async def _apply_round(
        self,
        connection: Connection,
        tenant_id: TenantId,
        reports: Sequence[tuple[DeviceId, Report]],
        seen: Counter[Outcome],
    ) -> Tally:
        """Apply one report an execution; returns what moved."""
        settings = self._settings
        began = time.monotonic()
        effects = await executions.apply_reports(
            connection, tenant_id, reports, writing.times_of(settings), max_attempts=settings.max_attempts
        )
        failures: list[FailedAttempt] = []
        for (device_id, said), effect in zip(reports, effects, strict=True):
            became = intake.outcome(said, was=effect.was, attempt=effect.attempt, applied=effect.applied)
            seen[became] += 1
            if effect.applied and effect.patience is not None:
                self._sorter.wrote(tenant_id, device_id, said, at=began, patience=effect.patience)
            if became is Outcome.UNKNOWN and self._sorter.may_log(became):
                # A made-up campaign, or another tenant's: row-level security makes the two look alike.
                _log.warning(
                    "ota_status_unknown", tenant_id=tenant_id, device_id=device_id, campaign_id=said.campaign_id
                )
            if effect.applied and said.status is ExecutionStatus.FAILED:
                failures.append(_failed_attempt(device_id, said, effect))
        await history.append_failed_attempts(connection, tenant_id, failures)
        await self._postpone(connection, tenant_id, [each for each in failures if not each.final])
        return intake.tally(
            (said.campaign_id, effect.was, effect.became) for (_, said), effect in zip(reports, effects, strict=True)
        )

    async def _postpone(self, connection: Connection, tenant_id: TenantId, retried: Sequence[FailedAttempt]) -> None:
        """Set the delay of each device that gets another attempt, by its campaign's policy."""
        for campaign_id in {each.campaign_id for each in retried}:
            campaign = await campaigns.get(connection, tenant_id, campaign_id)
            try:
                rules = read_rules(campaign, self._settings)
            except InvalidInput:
                rules = default_rules(self._settings)  # it is about to be held; the device just must not be lost
            delays = []
            for each in retried:
                if each.campaign_id == campaign_id:
                    luck = random.random()  # noqa: S311  spreads load only
                    delay = rules.retry.delay_of(each.attempt, luck=luck)
                    delays.append((DeviceId(each.device_id), Reason(each.reason), delay))
            await executions.postpone(connection, tenant_id, campaign_id, delays, in_all=rules.device_timeout)


def _failed_attempt(device_id: DeviceId, said: Report, effect: Effect) -> FailedAttempt:
    return FailedAttempt(
        said.campaign_id,
        device_id,
        effect.attempt or 1,
        effect.reason or Reason.REPORTED,
        said.error or "the device gave no reason",
        "device",
        final=not effect.retried,
    )
