"""Commits a batch of messages: classifies them, writes each tenant's reports, and tries again until that succeeds.

No message of a device can stop it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.reports.outcome import Outcome
from rollwave.domain.reports.parse import DeviceReport
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.ingest.apply import OneTenant, pauses
from rollwave.engine.ingest.classify import Classifier, ReportsOfUnsentDevices, Share
from rollwave.engine.ingest.many_tenants import TENANTS_PER_TRANSACTION, ManyTenants
from rollwave.engine.ingest.seen import SeenDevices
from rollwave.log import get_logger
from rollwave.mqtt.client import Incoming
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.outage import ValueRefused, is_away, is_outage

_log = get_logger("listener")

MAX_TENANTS_IN_PARALLEL = 4
"""Maximum number of tenants whose shares of a batch are committed in parallel."""


class Ingest:
    """Commits batches. Its only state between two batches is the classifier's memory, which may be lost."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        on_question: Callable[[TenantId, DeviceId], None] | None = None,
        *,
        tenants_per_transaction: int = TENANTS_PER_TRANSACTION,
    ) -> None:
        """``tenants_per_transaction``: minimum number of tenants in each of two parallel transactions."""
        self._classifier = Classifier(on_question)
        self._errors = IngestErrors()
        unsent = ReportsOfUnsentDevices()
        seen = SeenDevices()
        self._one_tenant = OneTenant(pool, settings, self._classifier, unsent, seen)
        self._many_tenants = ManyTenants(
            pool, settings, self._classifier, unsent, seen, tenants_per_transaction=tenants_per_transaction
        )
        self._writing_lock = asyncio.Lock()

    @property
    def fault(self) -> str:
        """The reason why reports cannot be written, if it is not an outage. Empty: there is none."""
        return self._errors.fault

    def forget(self) -> None:
        """Treat no later report as a repetition: earlier reports may never have been written."""
        self._classifier.forget()
        self._errors.forget()

    async def take_in(self, batch: Sequence[Incoming], *, behind: bool = False) -> list[CampaignRef]:
        """Commit a batch, and try again until that succeeds: no error drops a report.

        While another batch is being written, it classifies its messages and then waits, so that reports of a device are
        written in the order received. ``behind``: reports arrive faster than they can be written, so repetitions are
        dropped. Returns the campaigns in which every device that was sent to is terminal now.
        """
        started = time.perf_counter()
        outcomes: Counter[Outcome] = Counter()
        shares = await self._classify(batch, outcomes, behind=behind)
        async with self._writing_lock:
            for pause in pauses():
                if shares is not None:
                    break
                await asyncio.sleep(pause)
                shares = await self._classify(batch, outcomes, behind=behind)
            await reach(Failpoint.PARSED)
            settled = await self._write(shares or {}, outcomes)
        for each, number in outcomes.items():
            metrics.reports.labels(each.value).inc(number)
        metrics.batch_size.observe(len(batch))
        metrics.batch_seconds.observe(time.perf_counter() - started)
        return settled

    async def _classify(
        self, batch: Sequence[Incoming], outcomes: Counter[Outcome], *, behind: bool
    ) -> dict[TenantId, Share] | None:
        """Classify the messages. None: this has failed and must be tried again."""
        seen: Counter[Outcome] = Counter()
        try:
            await reach(Failpoint.CLASSIFYING)
            shares = self._classifier.classify(batch, seen, behind=behind)
        except Exception as error:  # noqa: BLE001  whatever it is, the reports are kept
            self._errors.failed("classifying", error)
            self._classifier.forget()
            return None
        self._errors.over("classifying")
        outcomes.update(seen)
        return shares

    async def _write(self, shares: dict[TenantId, Share], outcomes: Counter[Outcome]) -> list[CampaignRef]:
        limit = asyncio.Semaphore(MAX_TENANTS_IN_PARALLEL)

        async def persist(tenant_id: TenantId, share: Share) -> list[CampaignRef]:
            async with limit:
                return await self._persist(tenant_id, share, outcomes)

        settled: list[CampaignRef] = []
        if len(shares) > 1:
            written = await self._many_tenants.write(shares)
            outcomes.update(written.outcomes)
            settled, shares = written.settled, written.left
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(persist(*each)) for each in shares.items()]
        return settled + [ref for task in tasks for ref in task.result()]

    async def _persist(self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome]) -> list[CampaignRef]:
        for number, pause in enumerate(pauses()):
            try:
                # If a host's deferred constraint failed at the commit, the next try checks it after each statement.
                written = await self._one_tenant.write(tenant_id, share, immediate_checks=number > 0)
            except ValueRefused as refusal:
                return await self._isolate(tenant_id, share, outcomes, refusal)
            except Exception as error:  # noqa: BLE001  an outage or a fault of ours: the reports are kept
                self._errors.failed(tenant_id, error, tenant_id=tenant_id)
                await asyncio.sleep(pause)
            else:
                self._errors.over(tenant_id)
                outcomes.update(written.outcomes)
                return written.settled
        raise AssertionError("the pauses never end")

    async def _isolate(
        self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome], refusal: ValueRefused
    ) -> list[CampaignRef]:
        """Find the report whose value PostgreSQL refuses, by halving, so that it delays no other report.

        That report is tried without its version, which may have characters that the database's encoding lacks, and
        without its error message, since a host's column may be narrower. If it is still refused, it is dropped.
        """
        if share.samples:  # they matter least
            return await self._persist(tenant_id, Share(share.reports), outcomes)
        if len(share.reports) == 1:
            [(device_id, said)] = share.reports
            if said.version is not None:  # it must not cost the status
                plain = replace(said, version=None)
                return await self._persist(tenant_id, Share([DeviceReport(device_id, plain)]), outcomes)
            if said.error:
                shorter = replace(said, error=said.error[: len(said.error) // 2] or None)
                return await self._persist(tenant_id, Share([DeviceReport(device_id, shorter)]), outcomes)
        if len(share.reports) <= 1:
            if self._classifier.may_log(Outcome.INVALID):
                _log.error("ota_status_invalid_data", tenant_id=tenant_id, error=str(refusal))
            outcomes[Outcome.INVALID] += len(share.reports)
            self._errors.over(tenant_id)
            return []
        middle = len(share.reports) // 2
        first = await self._persist(tenant_id, Share(share.reports[:middle]), outcomes)
        return first + await self._persist(tenant_id, Share(share.reports[middle:]), outcomes)


@dataclass(frozen=True, slots=True)
class _IngestError:
    kind: str
    since: float
    is_fault: bool


class IngestErrors:
    """Records failed tries by the name of the work, and logs each kind of error once."""

    def __init__(self) -> None:
        self._errors: dict[str, _IngestError] = {}

    @property
    def fault(self) -> str:
        """The present problem and since when, without secrets. Empty: none, or an outage, which ends by itself."""
        faults = [each for each in self._errors.values() if each.is_fault]
        if not faults:
            return ""
        first = min(faults, key=lambda each: each.since)
        return f"cannot be written: {first.kind}, for {time.monotonic() - first.since:.0f} s; see the log"

    def failed(self, work: str, error: Exception, **fields: object) -> None:
        """Record that ``work`` has failed. An error that is not an outage is logged with its traceback."""
        before = self._errors.get(work)
        kind = type(error).__name__
        fault = not is_outage(error)
        since = before.since if before is not None and before.is_fault else time.monotonic()
        self._errors[work] = _IngestError(kind, since, fault)
        if is_away(error) or (before is not None and before.kind == kind):
            return  # the pool has logged that the database is unavailable
        _log.error("ota_reports_delayed", error=f"{kind}: {error}", exc_info=error if fault else None, **fields)

    def forget(self) -> None:
        """Forget all failures: another part does the work now."""
        self._errors.clear()

    def over(self, work: str) -> None:
        """Record that ``work`` has succeeded. Its next failure is logged again."""
        self._errors.pop(work, None)
