"""Stops a campaign by its own rules, or because it cannot be sent as it is; skips devices of one that is aborted."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollwave import metrics
from rollwave.domain.campaign import Action, CampaignRef, CampaignStatus, after
from rollwave.domain.events import ENGINE
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.ended_devices import EndedInCampaign
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.guardrail import Trip
from rollwave.domain.policy.words import TripAction
from rollwave.engine import guardrails
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.guardrails import Tripped
from rollwave.engine.timing import TURN_SECONDS
from rollwave.errors import Conflict, UnreadableRow
from rollwave.log import get_logger, report
from rollwave.store import campaigns, executions
from rollwave.store.campaign_rows import Campaign, CampaignCounters, JudgedCampaign
from rollwave.store.database import Connection, Pool, tenant_transaction

_log = get_logger("stop")

MAX_SKIPPED_WITH_THE_STOP, MAX_SKIPPED_PER_BATCH = 1000, 5000
"""Maximum number of devices skipped in the transaction that stops the campaign, so that it commits soon; and in each
batch after it."""

_HELD_HINT = "Correct what the reason names, then start the campaign again."
_TRIPPED_HINT = "Find out why the devices fail, then start the campaign again: the guardrail then begins a new test."

SKIPPED_BECAUSE = "campaign aborted before its turn"


@dataclass(frozen=True, slots=True)
class Stopped:
    """A campaign that a transaction stopped. Call :meth:`announce` after the commit.

    ``trips``: the guardrails of a policy document that tripped. If they only put segments under quarantine, ``to`` is
    the status that the campaign had. ``hint``: what an operator does about another pause.
    """

    tenant_id: str
    counters: CampaignCounters
    to: CampaignStatus
    reason: str
    trips: tuple[Trip, ...] = ()
    hint: str = _HELD_HINT

    def announce(self) -> None:
        """Log and count the stop. Call this after the commit only."""
        fields: dict[str, Any] = {
            "campaign_id": self.counters.campaign_id,
            "tenant_id": self.tenant_id,
            "reason": self.reason,
        }
        for trip in self.trips:
            metrics.guardrail_trips.labels(trip.action.value).inc()
            _log.warning("ota_guardrail_tripped", guardrail=trip.rule.name, action=trip.action.value, **fields)
        if self.to is self.counters.status:
            return
        if self.to is CampaignStatus.PAUSED:
            hint = _TRIPPED_HINT if self.trips else self.hint
            paused = Conflict(f"campaign {self.counters.campaign_id} is paused: {self.reason}", hint=hint)
            report(_log, "ota_campaign_held", paused, **fields)
            return
        metrics.auto_aborts.inc()
        aborted = Conflict(f"campaign {self.counters.campaign_id} is aborted: {self.reason}")
        report(
            _log,
            "ota_campaign_auto_abort",
            aborted,
            level=logging.WARNING,
            failed=self.counters.failed,
            succeeded=self.counters.succeeded,
            threshold=next((float(each.rule.threshold) for each in self.trips), self.counters.threshold),
            **fields,
        )


def may_stop(counters: CampaignCounters) -> bool:
    """Whether :func:`judge` may have to stop the campaign. False for most: then the database need not be asked."""
    if after(counters.status, Action.TRIP) is None:
        return False
    try:
        return Guardrail.read(counters.threshold, counters.min_completed).trips(counters.succeeded, counters.failed)
    except UnreadableRow:
        return True


async def judge(
    connection: Connection,
    tenant_id: str,
    counters: CampaignCounters,
    *,
    ended: EndedInCampaign | None = None,
    at_gate: bool = False,
) -> Stopped | None:
    """Stop the campaign in this transaction if its guardrail trips or cannot be read. None: it continues.

    ``ended``: the devices that this transaction has ended, which the guardrails of a policy document count. None: no
    device ended, and all guardrails are judged on their numbers. A campaign with flat columns is judged by its
    counters; while these are still a host's, it is not judged, but when it is adopted.
    """
    if after(counters.status, Action.TRIP) is None:
        return None
    if counters.policy_revision is not None:
        return await _judge_document(connection, tenant_id, counters, ended, at_gate=at_gate)
    try:
        guardrail = Guardrail.read(counters.threshold, counters.min_completed)
    except UnreadableRow as error:
        return await hold(connection, tenant_id, counters, str(error))
    if at_gate:
        guardrail = guardrail.at_gate()
    if not guardrail.trips(counters.succeeded, counters.failed):
        return None
    if not (await campaigns.get(connection, tenant_id, counters.campaign_id)).counted:
        return None
    finished = counters.succeeded + counters.failed
    reason = (
        f"{counters.failed} of {finished} finished devices failed "
        f"({counters.failed / finished:.1%}, over {guardrail.threshold:.1%})"
    )
    return await abort(connection, tenant_id, counters, reason)


async def _judge_document(
    connection: Connection,
    tenant_id: str,
    counters: CampaignCounters,
    ended: EndedInCampaign | None,
    *,
    at_gate: bool,
) -> Stopped | None:
    """Judge the guardrails of a policy document, and act on those that trip.

    The campaign's row is read only if a guardrail trips, or ``counters`` lack its document.
    """
    tripped = None
    if ended is not None and counters.document is not None:
        judged = JudgedCampaign(tenant_id, counters.campaign_id, counters.policy_revision, counters.document)
        tripped = await guardrails.ended(connection, judged, ended)
        if not tripped:
            return None
    campaign = await campaigns.get(connection, tenant_id, counters.campaign_id)
    if campaign.document is None:
        reason = campaign.document_fault or "the policy document cannot be read"
        return await hold(connection, tenant_id, counters, reason)
    if ended is None:
        tripped = await guardrails.judge_all(connection, campaign, at_gate=at_gate)
    elif tripped is None:
        tripped = await guardrails.ended(connection, campaign, ended)
    return await _act(connection, campaign, counters, tripped) if tripped else None


async def _act(
    connection: Connection, campaign: Campaign, counters: CampaignCounters, tripped: Sequence[Tripped]
) -> Stopped:
    """Record trips, put segments under quarantine, then abort or pause the campaign."""
    for each in tripped:
        await guardrails.record(connection, campaign, each)
    trips = tuple(each.trip for each in tripped)
    trips = tuple(sorted(trips, key=lambda each: list(TripAction).index(each.action)))  # an abort comes first
    stopped: Stopped | None = None
    if trips[0].action is TripAction.ABORT:
        stopped = await abort(connection, campaign.tenant_id, counters, trips[0].text)
    elif trips[0].action is TripAction.PAUSE:
        stopped = await hold(connection, campaign.tenant_id, counters, trips[0].text)
        if stopped is None and campaign.status is CampaignStatus.PAUSED:  # whoever starts it must see why not
            await campaigns.set_reason(connection, campaign, trips[0].text)
    return replace(stopped or Stopped(campaign.tenant_id, counters, counters.status, trips[0].text), trips=trips)


async def abort(connection: Connection, tenant_id: str, counters: CampaignCounters, reason: str) -> Stopped | None:
    """Abort a campaign by its own rules, and skip the first of its devices. None: it has ended already."""
    if after(counters.status, Action.TRIP) is None:
        return None
    await campaigns.move(connection, counters, Action.TRIP, tenant_id=tenant_id, actor=ENGINE, reason=reason)
    await skip_first(connection, tenant_id, counters.campaign_id)
    return Stopped(tenant_id, counters, CampaignStatus.ABORTED, reason)


async def pause(connection: Connection, campaign: Campaign, reason: str, *, hint: str = _HELD_HINT) -> Stopped | None:
    """Pause a campaign, as :func:`hold` does."""
    return await hold(connection, campaign.tenant_id, counters_of(campaign), reason, hint=hint)


async def hold(
    connection: Connection, tenant_id: str, counters: CampaignCounters, reason: str, *, hint: str = _HELD_HINT
) -> Stopped | None:
    """Pause a campaign that cannot be sent as it is, or that an operator must look at. None: it sends nothing anyway.

    ``hint``: what the operator does about it.
    """
    if after(counters.status, Action.HOLD) is None:
        return None
    to = await campaigns.move(connection, counters, Action.HOLD, tenant_id=tenant_id, actor=ENGINE, reason=reason)
    return Stopped(tenant_id, counters, to, reason, hint=hint)


async def skip_first(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> None:
    """Skip the first devices of a campaign that this transaction has aborted. Workers skip the others.

    Needs the campaign's lock.
    """
    await executions.skip_unsent(
        connection, tenant_id, campaign_id, limit=MAX_SKIPPED_WITH_THE_STOP, reason=SKIPPED_BECAUSE
    )


async def skip_rest(
    pool: Pool, ref: CampaignRef, *, turn_seconds: float = TURN_SECONDS, per_batch: int = MAX_SKIPPED_PER_BATCH
) -> bool:
    """Skip devices that an aborted campaign never sent to, for one turn. The abort was committed before.

    Returns whether all are skipped.
    """
    turn_ends = time.monotonic() + turn_seconds
    while time.monotonic() < turn_ends:
        async with tenant_transaction(pool, ref.tenant_id, queues=True) as connection:
            skipped = await executions.skip_unsent(
                connection, ref.tenant_id, ref.campaign_id, limit=per_batch, reason=SKIPPED_BECAUSE
            )
            await reach(Failpoint.CAMPAIGN_WRITTEN)
        if skipped < per_batch:
            return True
    return False


def counters_of(campaign: Campaign) -> CampaignCounters:
    """The campaign's counters at the time its row was locked."""
    return CampaignCounters(
        campaign.id,
        campaign.status,
        campaign.succeeded,
        campaign.failed,
        campaign.sent,
        campaign.threshold,
        campaign.min_completed,
        campaign.policy_revision,
    )
