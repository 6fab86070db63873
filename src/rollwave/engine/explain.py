"""Why a campaign's devices wait, and why one device does: what a claim would decide now, asked without its lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy import document, gates
from rollwave.domain.policy.admission import Waiting, admit, count_waiting, explain, may_go_at
from rollwave.domain.policy.facts import DeviceFacts, Facts
from rollwave.domain.policy.gates import GateName, Verdict
from rollwave.engine.locked_campaign import CampaignUnderPolicy, command_of, under_policy
from rollwave.engine.timing import steps_of
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, listeners, views
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document
from rollwave.store.views import MOST_COUNTED, Pending


@dataclass(frozen=True, slots=True)
class WaitingDevices:
    """The ``pending`` devices of a campaign at one moment, each counted once: under the first gate closed to it."""

    as_of: datetime
    pending: int
    waiting: Sequence[Waiting]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One device of a campaign: the gates that apply to it, in the order in which they are asked.

    ``wave`` is the name of its wave, None where that is not known any more or not yet. ``may_go_at`` is when the last
    of the closed gates opens (None: nothing tells). ``history`` are its events, oldest first.
    """

    status: ExecutionStatus
    attempt: int
    wave: str | None
    may_go_now: bool
    may_go_at: datetime | None
    checks: Sequence[Verdict]
    history: Sequence[Document]


async def waiting_devices(pool: Pool, settings: Settings, tenant_id: str, campaign_id: int) -> WaitingDevices:
    """What a campaign's devices wait for.

    Costs what its page does, and at most ``MOST_COUNTED`` entries of an index for the devices that were claimed and not
    sent to; devices in flight are counted up to the cap, as a claim does.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id, queues=True) as connection:
        campaign = under_policy(await campaigns.get(connection, tenant_id, campaign_id), settings)
        facts = await _facts(connection, campaign, settings)
        pending = await views.pending(connection, tenant_id, campaign_id)
    return WaitingDevices(facts.now, pending.devices, _count(campaign, facts, pending))


def _count(campaign: CampaignUnderPolicy, facts: Facts, pending: Pending) -> Sequence[Waiting]:
    held: dict[GateName, Waiting] = {}
    due = 0
    for group in pending.claimed:
        verdict = gates.own(facts, group.first)
        if verdict is None or verdict.open:
            due += group.devices
            continue
        before = held.get(verdict.gate)
        soonest = verdict if before is None else min(before.verdict, verdict, key=_opens)
        held[verdict.gate] = Waiting(soonest, group.devices + (before.devices if before else 0))
    return count_waiting(admit(campaign.policy, facts), pending=pending.devices, held=held, due=due)


def _opens(verdict: Verdict) -> float:
    return verdict.until.timestamp() if verdict.until else 0.0


async def explain_device(
    pool: Pool, settings: Settings, tenant_id: str, campaign_id: int, device_id: str
) -> Explanation:
    """Why one device of a campaign is not sent to now, or that it may be.

    Finds the device by its key, and counts at most ``MOST_COUNTED`` devices of each queue that go before it.

    Raises:
        NotFound: this tenant has no such campaign, or the campaign no such device.
    """
    async with tenant_transaction(pool, tenant_id, queues=True) as connection:
        campaign = under_policy(await campaigns.get(connection, tenant_id, campaign_id), settings)
        facts = await _facts(connection, campaign, settings)
        device_timeout = campaign.policy.device_timeout + campaign.row.activity.suspended_for
        device = await views.device(connection, tenant_id, campaign_id, device_id, device_timeout=device_timeout)
        history = await views.device_events(connection, tenant_id, campaign_id, device_id)
    checks = explain(admit(campaign.policy, facts), facts, device)
    return Explanation(
        status=device.status,
        attempt=device.attempt,
        wave=_wave(campaign, device),
        may_go_now=all(each.open for each in checks),
        may_go_at=may_go_at(checks, facts.now),
        checks=checks,
        history=history,
    )


def _wave(campaign: CampaignUnderPolicy, device: DeviceFacts) -> str | None:
    if not campaign.waves:
        return None
    if not device.fresh:  # which place it had is not kept
        return document.wave_name(0, campaign.waves) if campaign.row.wave == 0 and device.attempt else None
    found = document.wave_at(campaign.row.sent + device.ahead_fresh, campaign.waves)
    counted = device.ahead_fresh < MOST_COUNTED or found.up_to is None
    return document.wave_name(found.number, campaign.waves) if counted else None


async def _facts(connection: Connection, campaign: CampaignUnderPolicy, settings: Settings) -> Facts:
    heard = await listeners.heard(connection, settings.listener_slots)
    in_flight = 0
    if campaign.policy.max_in_flight is not None:
        in_flight = await counters.in_flight(connection, campaign.row, up_to=campaign.policy.max_in_flight)
    steps = steps_of(settings.tick_interval)
    facts = campaign.facts(settings, heard=heard, in_flight=in_flight, steps=steps)
    return replace(facts, unreadable=command_of(campaign).unreadable)
