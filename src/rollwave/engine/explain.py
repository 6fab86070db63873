"""Explains why devices of a campaign wait: the decision that a claim would make now, without the campaign's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy import gates, quarantined, rules
from rollwave.domain.policy.admission import Admission, admit, explain, may_go_at
from rollwave.domain.policy.budgets import Choice, caps_of
from rollwave.domain.policy.facts import DeviceFacts, Facts
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.placing import name_of_wave
from rollwave.domain.policy.queue import room_of
from rollwave.domain.policy.waiting import Waiting, count_waiting
from rollwave.domain.policy.words import GateName
from rollwave.engine import budgets
from rollwave.engine.locked_campaign import CampaignUnderPolicy, command_of, under_policy
from rollwave.engine.queue_facts import read_queue
from rollwave.engine.timing import steps_of
from rollwave.settings import Settings
from rollwave.store import campaigns, cells, counters, segments, views
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document
from rollwave.store.views import MOST_COUNTED, Pending


@dataclass(frozen=True, slots=True)
class WaitingDevices:
    """The ``pending`` devices of a campaign at one moment, each counted once, under the first gate closed to it."""

    as_of: datetime
    pending: int
    waiting: Sequence[Waiting]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One device of a campaign, with the verdicts of the gates that apply to it, in their order.

    ``wave``: the name of its wave; None: not known yet, or no longer known. ``may_go_at``: when the last closed gate
    opens; None: unknown. ``history``: its events, oldest first.
    """

    status: ExecutionStatus
    attempt: int
    wave: str | None
    may_go_now: bool
    may_go_at: datetime | None
    checks: Sequence[Verdict]
    history: Sequence[Document]


async def waiting_devices(pool: Pool, settings: Settings, tenant_id: str, campaign_id: int) -> WaitingDevices:
    """Count a campaign's PENDING devices by the gate that they wait for.

    Costs as much as the campaign's page, and reads at most ``MOST_COUNTED`` index entries of claimed devices. Devices
    in flight are counted up to the cap, as in a claim.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id, queues=True, snapshot=True) as connection:
        campaign = under_policy(await campaigns.get(connection, tenant_id, campaign_id), settings)
        return await count_devices(connection, campaign, settings)


async def count_devices(
    connection: Connection,
    campaign: CampaignUnderPolicy,
    settings: Settings,
    *,
    shown: Document | None = None,
    most: int = MOST_COUNTED,
) -> WaitingDevices:
    """As :func:`waiting_devices`, in a transaction with ``queues``.

    ``shown``: the campaign as the API shows it. ``most``: maximum number of index entries of claimed devices to read.
    """
    tenant_id, campaign_id = campaign.row.tenant_id, campaign.row.id
    facts = await _facts(connection, campaign, settings)
    admission = admit(campaign.policy, facts)
    device_timeout, tokens = _device_timeout(campaign), admission.tokens
    pending = await views.pending(
        connection, tenant_id, campaign_id, device_timeout=device_timeout, tokens=tokens, shown=shown, most=most
    )
    waiting = count_waiting(admission, facts, pending=pending.devices, held=_held(facts, pending), due=pending.due)
    verdicts = await _with_quarantine(connection, campaign, [each.verdict for each in waiting])
    named = [replace(each, verdict=verdict) for each, verdict in zip(waiting, verdicts, strict=True)]
    return WaitingDevices(facts.now, pending.devices, named)


async def _with_quarantine(
    connection: Connection, campaign: CampaignUnderPolicy, verdicts: Sequence[Verdict], number: int | None = None
) -> list[Verdict]:
    """The verdicts, with the segments that are under quarantine in that of this gate. ``number``: only this one."""
    if not any(each.gate is GateName.QUARANTINE for each in verdicts):
        return list(verdicts)
    tenant_id, campaign_id = campaign.row.tenant_id, campaign.row.id
    limit = quarantined.MAX_NAMED + 1
    found = await segments.quarantined(connection, tenant_id, campaign_id, number=number, limit=limit)
    return [quarantined.named(each, found) if each.gate is GateName.QUARANTINE else each for each in verdicts]


def _held(facts: Facts, pending: Pending) -> Mapping[GateName, Waiting]:
    """The claimed devices that wait for their own reason, by gate."""
    held: dict[GateName, Waiting] = {}
    for group in pending.claimed:
        verdict = gates.own(facts, group.first)
        if verdict is None or verdict.open:
            continue
        before = held.get(verdict.gate)
        soonest = verdict if before is None else min(before.verdict, verdict, key=_opens)
        held[verdict.gate] = Waiting(soonest, group.devices + (before.devices if before else 0))
    if pending.not_looked_at:
        sent_to = held.get(GateName.LEASE)
        verdict = gates.not_looked_at(pending.not_looked_at, sent_to.verdict if sent_to else None)
        held[GateName.LEASE] = Waiting(verdict, pending.not_looked_at + (sent_to.devices if sent_to else 0))
    return held


def _opens(verdict: Verdict) -> float:
    return verdict.until.timestamp() if verdict.until else 0.0


async def explain_device(
    pool: Pool, settings: Settings, tenant_id: str, campaign_id: int, device_id: str
) -> Explanation:
    """Explain whether one device of a campaign may be sent to now, and if not, why.

    Finds the device by its key, and counts at most ``MOST_COUNTED`` devices before it in each queue.

    Raises:
        NotFound: this tenant has no such campaign, or the campaign no such device.
    """
    async with tenant_transaction(pool, tenant_id, queues=True, snapshot=True) as connection:
        campaign = under_policy(await campaigns.get(connection, tenant_id, campaign_id), settings)
        facts = await _facts(connection, campaign, settings)
        device = await views.device(
            connection, tenant_id, campaign_id, device_id, device_timeout=_device_timeout(campaign)
        )
        history = await views.device_events(connection, tenant_id, campaign_id, device_id)
        admission = admit(campaign.policy, facts)
        device = await _with_room(connection, campaign, admission, device, settings)
        device = await _behind_others(connection, campaign, admission, device, device_id, settings)
        number = device.segment.number if device.segment else None
        checks = await _with_quarantine(connection, campaign, explain(admission, facts, device), number)
    return Explanation(
        status=device.status,
        attempt=device.attempt,
        wave=_wave(campaign, device),
        may_go_now=all(each.open for each in checks),
        may_go_at=may_go_at(checks, facts.now),
        checks=checks,
        history=history,
    )


async def _with_room(
    connection: Connection,
    campaign: CampaignUnderPolicy,
    admission: Admission,
    device: DeviceFacts,
    settings: Settings,
) -> DeviceFacts:
    """Add the number of devices that the next claim takes from the device's segment, under a policy document."""
    fresh = min(admission.fresh, settings.claim_batch)
    if device.segment is None or admission.queue is None or not fresh:
        return device
    rooms = admission.queue.rooms or await cells.next_rooms(
        connection,
        campaign.row,
        up_to_wave=campaign.row.wave,
        zones=admission.queue.open_zones,
        devices=settings.claim_batch,
    )
    return replace(device, segment=replace(device.segment, room=room_of(device.segment.number, rooms, fresh)))


async def _behind_others(
    connection: Connection,
    campaign: CampaignUnderPolicy,
    admission: Admission,
    device: DeviceFacts,
    device_id: str,
    settings: Settings,
) -> DeviceFacts:
    """Add whether devices that the next claim takes before the device leave it no place of a budget."""
    segment, document, look = device.segment, campaign.policy.document, settings.claim_batch
    fresh = min(admission.fresh, look)
    if document is None or admission.queue is None or segment is None or not fresh:
        return device
    if not segment.budgets or segment.held or not device.fresh:
        return device
    rooms = await cells.next_rooms(
        connection, campaign.row, up_to_wave=campaign.row.wave, zones=admission.queue.open_zones, devices=look
    )
    choice = Choice(caps_of(document), fresh)
    found = await budgets.behind(connection, campaign.row, choice, rooms, look=look)
    return replace(device, segment=replace(segment, behind=found.get(device_id)))


def _wave(campaign: CampaignUnderPolicy, device: DeviceFacts) -> str | None:
    document = campaign.policy.document
    if document is not None:
        if device.segment is None:
            return None
        return name_of_wave(document, device.segment.wave)
    if not campaign.waves:
        return None
    if not device.fresh:  # the position of a device that was sent to is not stored
        return rules.wave_name(0, campaign.waves) if campaign.row.wave == 0 and device.attempt else None
    found = rules.wave_at(campaign.row.sent + device.ahead_fresh, campaign.waves)
    counted = device.ahead_fresh < MOST_COUNTED or found.up_to is None
    return rules.wave_name(found.number, campaign.waves) if counted else None


def _device_timeout(campaign: CampaignUnderPolicy) -> float:
    """The device timeout in seconds, with all suspensions of the campaign added."""
    return campaign.policy.device_timeout + campaign.row.activity.suspended_for


async def _facts(connection: Connection, campaign: CampaignUnderPolicy, settings: Settings) -> Facts:
    document, in_flight = campaign.policy.document, 0
    heard = campaign.row.heard(settings.listener_slots)
    if document is None and campaign.policy.max_in_flight is not None:
        in_flight = await counters.in_flight(connection, campaign.row, up_to=campaign.policy.max_in_flight)
    steps = steps_of(settings.tick_interval)
    facts = campaign.facts(settings, heard=heard, in_flight=in_flight, steps=steps)
    facts = replace(facts, unreadable=command_of(campaign).unreadable)
    if document is None or facts.unreadable is not None or facts.targeted is not None:
        return facts
    return replace(facts, queue=await read_queue(connection, campaign, document, guarded=True))
