"""Judges the gate of the present wave of a campaign under a policy document, and opens the next wave."""

from __future__ import annotations

from dataclasses import dataclass

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.events import ENGINE, WaveOpened
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.waves import CONDITIONS_HOLD, GateDecision
from rollwave.domain.policy.words import OnFail, WaveState
from rollwave.domain.policy_events import WaveChanged
from rollwave.engine import stop
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.engine.queue_facts import PresentWave, read_wave
from rollwave.engine.stop import Stopped
from rollwave.log import get_logger
from rollwave.store import events, waves
from rollwave.store.database import Connection

_log = get_logger("upkeep")

_NO_MATCH_HINT = "Correct the selector by an edit of the policy, then start the campaign again. Or promote the wave."
_FAILED_HINT = (
    "Find out why devices fail. Then promote the wave, or start the campaign again to judge the gate anew: a retry "
    "changes its success rate, and an edit its guardrails."
)


@dataclass(frozen=True, slots=True)
class Judged:
    """The result of judging a gate.

    ``to_verify``: it opens or fails once the counters are compared with the rows. ``moved``: another wave is open now.
    ``failed``: it has failed, or the wave's selector matches nothing, so that the campaign waits for an operator.
    """

    to_verify: bool = False
    stopped: Stopped | None = None
    moved: bool = False
    failed: bool = False


async def judge(
    connection: Connection, locked: CampaignUnderPolicy, document: PolicyDocument, *, verified: bool
) -> Judged:
    """Judge the present wave's gate. A gate opens or fails only if the counters were ``verified``.

    Needs the campaign's lock.
    """
    wave = await read_wave(connection, locked, document)
    if wave is None:
        return Judged()
    campaign, row, decision = locked.row, wave.row, wave.decision
    running = campaign.status is CampaignStatus.RUNNING
    if row.matches_nothing:
        reason = f"the selector of wave {row.name} matches no device"
        stopped = await stop.pause(connection, campaign, reason, hint=_NO_MATCH_HINT) if running else None
        return Judged(stopped=stopped, failed=True)
    if wave.last:
        if wave.devices.finished and row.state is not WaveState.PASSED and not wave.devices.quarantined:
            await waves.note(connection, campaign, row.number, GateDecision(WaveState.PASSED))
        return Judged()
    fails = decision.state is WaveState.FAILED and (running or row.state is not WaveState.FAILED)
    passes = decision.opens and running  # a paused campaign opens no wave by itself
    if (fails or passes) and not verified and row.promoted_by is None:
        return Judged(to_verify=True)
    if (decision.state in CONDITIONS_HOLD or wave.over) and row.promoted_by is None:
        stopped = await stop.judge(connection, campaign.tenant_id, stop.counters_of(campaign), at_gate=True)
        if stopped:
            return Judged(stopped=stopped)
    return await _act(connection, locked, wave, document)


async def _act(
    connection: Connection, locked: CampaignUnderPolicy, wave: PresentWave, document: PolicyDocument
) -> Judged:
    campaign, row, decision = locked.row, wave.row, wave.decision
    running = campaign.status is CampaignStatus.RUNNING
    if decision.opens and (running or row.promoted_by is not None):
        if not await waves.open_next(connection, campaign, row.number):
            return Judged()
        following = document.waves[row.number + 1].name
        opened = WaveOpened(row.number + 1, campaign.succeeded, campaign.failed, following, row.name)
        await events.append(connection, campaign.tenant_id, campaign.id, opened, actor=ENGINE)
        _log.info("ota_wave_opened", campaign_id=campaign.id, tenant_id=campaign.tenant_id, wave=row.number + 1)
        return Judged(moved=True)
    if decision.opens:  # a paused campaign opens no wave by itself; it is judged again when it is started
        return Judged()
    if (decision.state, decision.soak) != (row.state, row.soak):
        await waves.note(connection, campaign, row.number, decision)
        if decision.state is not row.state:
            changed = WaveChanged(row.number, row.name, decision.state.value, decision.lacking or None)
            await events.append(connection, campaign.tenant_id, campaign.id, changed, actor=ENGINE)
    if decision.state is not WaveState.FAILED:
        return Judged()
    gate = document.waves[row.number].gate
    reason = f"the gate of wave {row.name} failed: {decision.lacking}"
    if gate is not None and gate.on_fail is OnFail.ABORT:
        return Judged(stopped=await stop.abort(connection, campaign.tenant_id, stop.counters_of(campaign), reason))
    stopped = await stop.pause(connection, campaign, reason, hint=_FAILED_HINT) if running else None
    return Judged(stopped=stopped, failed=True)


async def waits_for_operator(connection: Connection, locked: CampaignUnderPolicy, document: PolicyDocument) -> bool:
    """Whether the campaign is paused and its present wave would pause it again: its gate has failed, which is stored,
    or its selector matches nothing.
    """
    if locked.row.status is not CampaignStatus.PAUSED:
        return False
    wave = await read_wave(connection, locked, document)
    if wave is None or wave.row.matches_nothing:
        return wave is not None
    return not wave.last and wave.row.state is wave.decision.state is WaveState.FAILED
