"""Devices whose deadline has passed: another attempt after a delay, or the end. Each failed attempt has its history."""

from __future__ import annotations

import random
from collections import Counter

from rollwave.domain.events import ENGINE, AttemptFailed, DeviceFailure, Entry, GivenUp
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import DeviceId, is_valid_id
from rollwave.domain.policy.document import Rules
from rollwave.domain.reports.coalesce import Tally
from rollwave.domain.retry import Reason
from rollwave.engine import stop
from rollwave.engine.stop import Stopped
from rollwave.store import adoption, campaigns, events, executions
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.executions import Overdue

MAX_OVERDUE_PER_LOOK = 5000

NO_OTHER = "an attempt failed, and the campaign was stopped before the next"


async def sweep(
    connection: Connection, campaign: Campaign, rules: Rules, *, sends_on: bool
) -> tuple[bool, bool, Stopped | None]:
    """Judge the devices that are overdue.

    Returns whether any failed for good, whether there may be more of them, and the campaign if that stopped it.

    Needs the campaign's lock. A campaign that no longer ``sends_on`` gives nobody another attempt.
    """
    overdue = await executions.lock_overdue(
        connection,
        campaign,
        everyone=not sends_on,
        in_all=rules.device_timeout,
        extension=campaign.activity.extension(rules.longest_deadline),
        limit=MAX_OVERDUE_PER_LOOK,
    )
    if finished := [each.device_id for each in overdue if each.finished]:
        await adoption.leave(connection, campaign, finished)
    more = len(overdue) == MAX_OVERDUE_PER_LOOK or bool(finished)
    again: list[tuple[DeviceId, Reason, float]] = []
    over: list[tuple[DeviceId, Reason, str]] = []
    tally: Tally = Counter()
    failures: list[Entry[DeviceFailure]] = []
    for each in (each for each in overdue if not each.finished):
        reason = _reason(each)
        given_up = each.failed_for is not None
        delay = None if given_up else rules.retry.delay_after(reason, each.attempt, luck=random.random())  # noqa: S311  spreads load only
        retried = sends_on and delay is not None and is_valid_id(each.device_id)
        message = _message(reason, rules, each.attempt) if reason is not each.failed_for else NO_OTHER
        if retried and delay is not None:
            again.append((each.device_id, reason, delay))
        else:
            over.append((each.device_id, reason, message))
            tally.update({(campaign.id, each.status): -1, (campaign.id, ExecutionStatus.FAILED): 1})
        kind = GivenUp if given_up else AttemptFailed
        failed = kind(each.attempt, message, reason, final=not retried, device_id=each.device_id)
        failures.append(Entry(campaign.id, failed, ENGINE))
    if again:
        await executions.postpone(connection, campaign, again, in_all=rules.device_timeout)
    await events.append_failed_attempts(connection, campaign.tenant_id, failures)
    if not over:
        return False, more, None
    await executions.fail(connection, campaign, over)
    [standing] = await campaigns.count(connection, campaign.tenant_id, tally)
    return True, more, await stop.judge(connection, campaign.tenant_id, standing)


def _reason(overdue: Overdue) -> Reason:
    if overdue.out_of_time:
        return Reason.OVERDUE
    if overdue.failed_for is not None:
        return overdue.failed_for
    return Reason.NO_PROGRESS if overdue.heard else Reason.NO_ANSWER


def _message(reason: Reason, rules: Rules, attempt: int) -> str:
    sends = f"sent {attempt} time{'s' if attempt > 1 else ''}"
    match reason:
        case Reason.OVERDUE:
            return f"not done within the {rules.device_timeout:g} s that a device has in all; {sends}"
        case Reason.NO_ANSWER:
            return f"no report within {rules.answer_within:g} s of the command; {sends}"
        case _:
            return f"no further report within {rules.patience:g} s; {sends}"
