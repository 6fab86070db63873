"""Writes one tenant's reports in one transaction: applies and counts them, writes history, and checks the guardrail."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollwave.domain.campaign import FINAL, CampaignRef
from rollwave.domain.events import DEVICE, AttemptFailed, Entry
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.policy.ended_devices import EndedInCampaign
from rollwave.domain.policy.guardrail import Failure, Trial, read_failures
from rollwave.domain.reports.outcome import Move, Outcome, Tally, ended_in, one_per_execution, outcome_of, tally_of
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.domain.retry import Reason
from rollwave.engine import budgets, stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.ingest.classify import Classifier, ReportsOfUnsentDevices, Share
from rollwave.engine.ingest.seen import Said, SeenDevices
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.stop import Stopped
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, cells, counters, events, executions, labels, overdue, quarantine
from rollwave.store.campaign_rows import CampaignCounters
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Effect, Times
from rollwave.store.labels import Seen
from rollwave.store.overdue import Postponed

_log = get_logger("listener")

_SUCCESS, _FAILED = ExecutionStatus.SUCCESS, ExecutionStatus.FAILED

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 5.0
"""Seconds before a batch that could not be written is tried again: the first delay, which doubles, and the longest."""


@dataclass(frozen=True, slots=True)
class TenantWritten:
    """The result of a commit: the number of reports by outcome, and the campaigns that are ``settled``.

    In a settled campaign every device that was sent to is terminal: it may complete, or open its next wave.
    """

    outcomes: Counter[Outcome]
    settled: list[CampaignRef]


@dataclass(frozen=True, slots=True)
class _Applied:
    """What the reports have changed.

    Attributes:
        moves: the changes of state.
        failures: the attempts that failed.
        effects: the effect of each report.
    """

    moves: Tally
    failures: list[Entry[AttemptFailed]]
    effects: Sequence[Effect]


class OneTenant:
    """Writes the share of one tenant in a batch."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        classifier: Classifier,
        unsent: ReportsOfUnsentDevices,
        seen: SeenDevices,
    ) -> None:
        self._pool = pool
        self._seen = seen
        self._settings = settings
        self._classifier = classifier
        self._unsent = unsent

    async def write(self, tenant_id: TenantId, share: Share, *, immediate_checks: bool = False) -> TenantWritten:
        """Commit the share. ``immediate_checks``: the host's deferred constraints are checked after each statement.

        Raises:
            ValueRefused: PostgreSQL refuses a value of the share. Then nothing of it is written.
        """
        outcomes: Counter[Outcome] = Counter()
        stopped: list[Stopped] = []
        moves: Tally = Counter()
        failures: list[Entry[AttemptFailed]] = []
        seen: dict[DeviceId, Said | None] = {}
        effects: list[Sequence[Effect]] = []
        passes = one_per_execution(share.reports)
        outcomes[Outcome.COALESCED] = len(share.reports) - sum(len(each) for each in passes)
        async with tenant_transaction(
            self._pool, tenant_id, generic_plans=True, immediate_checks=immediate_checks
        ) as connection:
            for reports in passes:
                applied = await self._apply(connection, tenant_id, reports, outcomes)
                moves.update(applied.moves)
                failures += applied.failures
                effects.append(applied.effects)
                self._seen.add(tenant_id, reports, applied.effects, seen)
            if seen:
                await labels.record(connection, tenant_id, seen_of(seen))
            await reach(Failpoint.REPORTS_APPLIED)
            over = ended_in(moves)
            counted = await counters.count(
                connection, tenant_id, moves, also={CampaignId(each.campaign_id) for each in failures}
            )
            under_document = {each.campaign_id for each in counted if each.policy_revision is not None}
            devices = _ended(passes, effects, under_document)
            await cells.end(connection, tenant_id, devices)
            await budgets.ended(connection, tenant_id, devices)
            ended = [each for each in counted if each.campaign_id in over]
            await events.append_failed_attempts(connection, tenant_id, failures)
            for each in ended:
                halt = await stop.judge(connection, tenant_id, each, ended=devices.get(each.campaign_id))
                stopped += [halt] if halt else []
            if share.samples:
                await quarantine.keep(connection, tenant_id, share.samples)
            await reach(Failpoint.REPORTS_WRITTEN)
        self._seen.stored(tenant_id, seen)
        for halted in stopped:
            halted.announce()
        return TenantWritten(outcomes, settled_campaigns(tenant_id, ended, stopped))

    async def _apply(
        self,
        connection: Connection,
        tenant_id: TenantId,
        reports: Sequence[DeviceReport],
        outcomes: Counter[Outcome],
    ) -> _Applied:
        """Apply one report per execution, and count its outcome in ``outcomes``."""
        settings = self._settings
        began = time.monotonic()
        effects = await executions.apply_reports(
            connection, tenant_id, reports, times_of(settings), max_attempts=settings.max_attempts
        )
        failures: list[Entry[AttemptFailed]] = []
        for (device_id, said), effect in zip(reports, effects, strict=True):
            became = outcome_of(said, was=effect.was, attempt=effect.attempt, applied=effect.applied)
            outcomes[became] += 1
            if effect.applied and effect.progress_timeout is not None:
                self._classifier.wrote(tenant_id, device_id, said, at=began, progress_timeout=effect.progress_timeout)
            if became is Outcome.UNKNOWN and self._classifier.may_log(became):
                # The campaign does not exist or belongs to another tenant. Row-level security hides which.
                _log.warning(
                    "ota_status_unknown", tenant_id=tenant_id, device_id=device_id, campaign_id=said.campaign_id
                )
            if became is Outcome.NOT_SENT:
                self._unsent.note(tenant_id, device_id, said)
            if effect.applied and said.status is ExecutionStatus.FAILED:
                failures.append(_failed_attempt(device_id, said, effect))
        await self._postpone(connection, tenant_id, [each for each in failures if not each.event.final])
        moved = tally_of(
            Move(said.campaign_id, effect.was, effect.became)
            for (_, said), effect in zip(reports, effects, strict=True)
        )
        return _Applied(moved, failures, effects)

    async def _postpone(
        self, connection: Connection, tenant_id: TenantId, retried: Sequence[Entry[AttemptFailed]]
    ) -> None:
        """Set the delay of each device that gets another attempt, by its campaign's policy."""
        for campaign_id in {each.campaign_id for each in retried}:
            campaign = await campaigns.get(connection, tenant_id, campaign_id)
            # A campaign whose policy cannot be read is about to be paused. Its devices must only not be lost.
            policy = under_policy(campaign, self._settings).policy
            delays = []
            for each in retried:
                if each.campaign_id == campaign_id and each.event.cause is not None:
                    luck = random.random()  # noqa: S311  spreads load only
                    delay = policy.retry.delay_of(each.event.attempt, luck=luck)
                    delays.append(Postponed(DeviceId(each.event.device_id), each.event.cause, delay))
            await overdue.postpone(connection, campaign, delays, device_timeout=policy.device_timeout)


def _ended(
    passes: Iterable[Sequence[DeviceReport]],
    effects: Iterable[Sequence[Effect]],
    under_document: Collection[CampaignId],
) -> dict[CampaignId, EndedInCampaign]:
    """The devices that these reports have ended, of campaigns ``under_document``, and others that have a place."""
    ended: dict[CampaignId, EndedInCampaign] = defaultdict(EndedInCampaign)
    for reports, of_reports in zip(passes, effects, strict=True):
        for (_, said), effect in zip(reports, of_reports, strict=True):
            _, became, _, reason, _, _, segment, position, number, budget_values, failed_before = effect
            if became is not _SUCCESS and became is not _FAILED:
                continue
            campaign_id = said.campaign_id
            if not segment and campaign_id not in under_document:
                continue
            if became is _SUCCESS and not failed_before:
                ended[campaign_id].succeeded(segment, position, number, budget_values)
            else:
                failure = Failure(reason or Reason.REPORTED, said.code) if became is _FAILED else None
                ended[campaign_id].add(Trial(effect.place, failure, read_failures(failed_before or ())))
    return dict(ended)


def _failed_attempt(device_id: DeviceId, said: Report, effect: Effect) -> Entry[AttemptFailed]:
    failed = AttemptFailed(
        effect.attempt or 1,
        said.error or "the device gave no reason",
        effect.reason or Reason.REPORTED,
        final=not effect.retried,
        code=said.code,
        device_id=device_id,
    )
    return Entry(said.campaign_id, failed, DEVICE)


def seen_of(found: Mapping[DeviceId, Said | None]) -> list[Seen]:
    """What to store about devices."""
    return [Seen(device_id, said.version if said else None) for device_id, said in found.items()]


def pauses() -> Iterator[float]:
    """Yield the seconds to wait after each failed try."""
    delay = FIRST_RETRY_SECONDS
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it
        delay = min(LAST_RETRY_SECONDS, delay * 2)


def times_of(settings: Settings) -> Times:
    """The timeouts of a device that has reported, if its campaign sets none."""
    return Times(settings.progress_timeout, settings.progress_timeout, settings.device_timeout)


def settled_campaigns(
    tenant_id: TenantId, counters: Sequence[CampaignCounters], stopped: Collection[Stopped]
) -> list[CampaignRef]:
    """The campaigns in which every device that was sent to is terminal now, without those just stopped."""
    over = {each.counters.campaign_id for each in stopped if each.tenant_id == tenant_id}
    return [
        CampaignRef(tenant_id, each.campaign_id, each.status)
        for each in counters
        if each.status not in FINAL and each.campaign_id not in over and each.succeeded + each.failed >= each.sent
    ]
