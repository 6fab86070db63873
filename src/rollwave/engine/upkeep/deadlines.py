"""Decides whether a campaign's deadlines run, and judges devices whose deadline has passed.

Such a device gets another attempt after a delay, or becomes ``FAILED``. Each failed attempt is written to history.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.campaign import FINAL, CampaignStatus, Change
from rollwave.domain.events import ENGINE, AttemptFailed, DeviceFailure, Entry, GivenUp
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, is_valid_id
from rollwave.domain.policy import time_gates
from rollwave.domain.policy.ended_devices import EndedInCampaign
from rollwave.domain.policy.guardrail import Failure, Trial, read_failures
from rollwave.domain.policy.rules import Policy
from rollwave.domain.reports.outcome import Tally
from rollwave.domain.retry import Reason
from rollwave.engine import budgets, stop
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.engine.stop import Stopped
from rollwave.settings import Settings
from rollwave.store import campaigns, cells, counters, events, listeners, overdue
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.listeners import Listening
from rollwave.store.overdue import Failed, Overdue, Postponed
from rollwave.store.standing import ClosedSegment

MAX_OVERDUE_PER_LOOK = 5000
"""Maximum number of devices judged in one look."""

CATCH_UP_SECONDS = 10.0
"""Seconds after which a new listener has surely committed the reports that were queued for it."""

NO_OTHER = "an attempt failed, and the campaign was stopped before the next"


@dataclass(frozen=True, slots=True)
class Noted:
    """The activity of a campaign at a look. ``may_judge``: devices may be judged by their deadlines now.

    ``seen_ago``: seconds since the last look that found it active. ``suspended_for``: seconds for which it was
    suspended until this look; 0: it was active before, or it is suspended now.
    """

    may_judge: bool
    seen_ago: float
    suspended_for: float


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of judging overdue devices.

    ``any_failed``: devices became FAILED. ``more``: there may be more overdue devices. ``stopped``: the campaign was
    stopped because of the failures.
    """

    any_failed: bool
    more: bool
    stopped: Stopped | None = None


@dataclass(frozen=True, slots=True)
class _Judged:
    """An overdue device whose attempt has failed, and the seconds until the next one; None: it has failed for good."""

    device: Overdue
    reason: Reason
    message: str
    retry_in: float | None


async def note_activity(connection: Connection, locked: CampaignUnderPolicy, settings: Settings) -> Noted:
    """Record whether the campaign is active.

    Deadlines stand still while a campaign is suspended. A campaign that becomes active is judged at the next look;
    after a halt, a freeze or any suspension of a campaign under a document, when its progress timeout has passed once,
    so that every device has at least this time to report.
    """
    campaign, policy, number = locked.row, locked.policy, settings.listener_slots
    listening = await listeners.listening(connection, number)
    active = campaign.heard(number) and not _suspends(locked, settings)
    heard_for = listening.without_gap if listening else 0.0
    change = campaign.activity.change(active=active, heard_for=heard_for, tick=settings.tick_interval)
    gives_time = bool(campaign.stopped_by) or policy.document is not None
    judge_in = policy.progress_timeout if gives_time else 0.0
    await campaigns.note_activity(connection, campaign, change, longest=policy.longest_deadline, judge_in=judge_in)
    # Where the database's clock was set back, the time that is left is longer than it was ever set.
    waits = 0 < campaign.deadlines_in <= policy.progress_timeout
    may_judge = change is not Change.ACTIVATE and (not waits or campaign.status in FINAL)
    seen_ago = max(0.0, campaign.activity.seen_ago or 0.0)
    return Noted(
        may_judge=active and may_judge and _have_been_heard(listening, policy),
        seen_ago=seen_ago,
        suspended_for=seen_ago if change is Change.ACTIVATE else 0.0,
    )


def _suspends(locked: CampaignUnderPolicy, settings: Settings) -> bool:
    """Whether the campaign's status, or what stops all of its commands, makes its deadlines stand still.

    A campaign that is aborted sends nothing, and its last devices must end.
    """
    if locked.row.status is not CampaignStatus.RUNNING:
        return locked.row.status is CampaignStatus.PAUSED
    stops = time_gates.stops(locked.policy, locked.facts(settings, heard=True))
    return any(not each.open for each in stops)


def _have_been_heard(heard: Listening | None, policy: Policy) -> bool:
    """Whether the report of a working device would have been received by now. Deadlines run only while a listener does.

    So no device fails because of an outage of broker or database, of the queue after it, or of a change of listeners.
    """
    longest = policy.longest_silence
    return heard is not None and heard.without_gap >= longest and heard.subscribed >= min(longest, CATCH_UP_SECONDS)


async def sweep(
    connection: Connection,
    campaign: Campaign,
    policy: Policy,
    *,
    sends_on: bool,
    closed: Sequence[ClosedSegment] = (),
    deadlines_run: bool = True,
) -> Swept:
    """Judge the devices that are overdue.

    Needs the campaign's lock. ``sends_on`` False: the campaign sends nothing more, so no device gets another attempt.
    ``closed``: segments that may not be sent to now. Devices of these neither fail nor get another attempt
    (:mod:`rollwave.engine.upkeep.standing`). ``deadlines_run`` False: only devices that wait for another attempt after
    they reported that one failed. No later report of theirs counts, so that nothing is to be waited for.
    The time since the campaign was last active does not count for the device timeout then.
    """
    stood = 0.0 if deadlines_run else max(0.0, campaign.activity.seen_ago or 0.0)
    late = await overdue.lock_overdue(
        connection,
        campaign,
        everyone=not sends_on,
        device_timeout=policy.device_timeout + stood,
        extension=campaign.activity.extension(policy.longest_deadline) if deadlines_run else 0.0,
        closed=closed,
        reported=not deadlines_run,
        limit=MAX_OVERDUE_PER_LOOK,
    )
    if finished := [each.device_id for each in late if each.finished]:
        await counters.leave(connection, campaign, finished)
    more = len(late) == MAX_OVERDUE_PER_LOOK or bool(finished)
    judged = [_judge(each, policy, sends_on=sends_on) for each in late if not each.finished]
    again = [
        Postponed(each.device.device_id, each.reason, each.retry_in) for each in judged if each.retry_in is not None
    ]
    if again:
        await overdue.postpone(connection, campaign, again, device_timeout=policy.device_timeout)
    history = [_failed_attempt(campaign.id, each) for each in judged]
    await events.append_failed_attempts(connection, campaign.tenant_id, history)
    failed = [each for each in judged if each.retry_in is None]
    if not failed:
        return Swept(any_failed=False, more=more)
    return Swept(any_failed=True, more=more, stopped=await _fail(connection, campaign, failed))


async def _fail(connection: Connection, campaign: Campaign, failed: Sequence[_Judged]) -> Stopped | None:
    """Fail the devices, count them, and check the guardrail."""
    ended = [Failed(each.device.device_id, each.reason, each.message) for each in failed]
    await overdue.fail(connection, campaign, ended)
    tally: Tally = Counter()
    for each in failed:
        tally.update({(campaign.id, each.device.status): -1, (campaign.id, ExecutionStatus.FAILED): 1})
    [moved] = await counters.count(connection, campaign.tenant_id, tally)
    devices = EndedInCampaign(
        Trial(each.device.place, Failure(each.reason, each.device.code), read_failures(each.device.failed_before))
        for each in failed
    )
    await cells.end(connection, campaign.tenant_id, {campaign.id: devices})
    await budgets.ended(connection, campaign.tenant_id, {campaign.id: devices})
    return await stop.judge(connection, campaign.tenant_id, moved, ended=devices)


def _judge(device: Overdue, policy: Policy, *, sends_on: bool) -> _Judged:
    reason = _reason(device)
    message = NO_OTHER if reason is device.failed_for else _message(reason, policy, device.attempt)
    retry_in = None
    if sends_on and device.failed_for is None and is_valid_id(device.device_id):
        retry_in = policy.retry.delay_after(reason, device.attempt, luck=random.random())  # noqa: S311  spreads load only
    return _Judged(device, reason, message, retry_in)


def _failed_attempt(campaign_id: CampaignId, judged: _Judged) -> Entry[DeviceFailure]:
    device = judged.device
    kind = AttemptFailed if device.failed_for is None else GivenUp
    final = judged.retry_in is None
    failed = kind(
        device.attempt, judged.message, judged.reason, final=final, code=device.code, device_id=device.device_id
    )
    return Entry(campaign_id, failed, ENGINE)


def _reason(late: Overdue) -> Reason:
    if late.out_of_time:
        return Reason.OVERDUE
    if late.failed_for is not None:
        return late.failed_for
    return Reason.NO_PROGRESS if late.heard else Reason.NO_ANSWER


def _message(reason: Reason, policy: Policy, attempt: int) -> str:
    sends = f"sent {attempt} time{'s' if attempt > 1 else ''}"
    match reason:
        case Reason.OVERDUE:
            return f"not done within the {policy.device_timeout:g} s that a device has in all; {sends}"
        case Reason.NO_ANSWER:
            return f"no report within {policy.answer_timeout:g} s of the command; {sends}"
        case _:
            return f"no further report within {policy.progress_timeout:g} s; {sends}"
