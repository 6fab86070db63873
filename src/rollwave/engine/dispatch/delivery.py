"""Publishes claimed commands before their lease ends, then marks accepted ones as sent and releases the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from rollwave import metrics
from rollwave.domain.broker_refusal import TEXT, Refusal
from rollwave.domain.campaign import CampaignRef
from rollwave.engine import stop
from rollwave.engine.dispatch.isolate import Isolation
from rollwave.engine.dispatch.permission import admission_of
from rollwave.engine.dispatch.session import Answers, Batch, CommandSession, publish_batch
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed, Times

_log = get_logger("dispatcher")

MAX_DEVICES_NAMED = 5
"""Maximum number of devices that one log record names."""


class Delivery:
    """Publishes batches and records the answers. Holds no database connection while it waits for the broker."""

    def __init__(
        self, pool: Pool, command_session: CommandSession, settings: Settings, *, passes_brakes: bool = False
    ) -> None:
        """``passes_brakes``: neither a halt nor a freeze stops a batch that is being published."""
        self._pool = pool
        self._passes_brakes = passes_brakes
        self._command_session = command_session
        self._settings = settings
        self._isolation = Isolation(command_session, timeout=settings.publish_timeout, braked=self._is_braked)

    async def publish(
        self, ref: CampaignRef, batch: Batch, handed_over: asyncio.Event, still_runs: Callable[[], Awaitable[bool]]
    ) -> Answers:
        """Publish a batch, set ``handed_over``, and return the broker's answers. Call :meth:`record_answers` next.

        If the broker ends the session, the commands without an answer are published again in parts, each after a check
        that the campaign ``still_runs``. Devices that were suspected before are published in such parts from the start.
        """
        with metrics.publish_seconds.time():
            suspects = [command for command in batch.commands if command.suspect]
            others = batch.only([command for command in batch.commands if not command.suspect])
            answers = await self._publish(ref, others, handed_over)
            handed_over.set()
            if answers.session_lost or (suspects and not answers.unanswered):
                again = batch.only([*answers.unanswered, *suspects])
                isolated = await self._isolation.run(ref, again, still_runs)
                answers.unanswered = isolated.unanswered
                answers.add(isolated)
            else:
                answers.unanswered += suspects
        await reach(Failpoint.PUBLISHED)
        return answers

    async def record_answers(self, ref: CampaignRef, times: Times, parts: Sequence[Answers]) -> None:
        """Write the answers to all parts of a batch to the database, and log refused commands."""
        answers = Answers()
        for part in parts:
            answers.add(part)
            answers.unanswered += part.unanswered
            answers.problem = answers.problem or (part.problem if part.failed else "")
        await self._record(ref, times, answers)
        await reach(Failpoint.MARKED)
        metrics.dispatched.inc(len(answers.taken))

    async def give_back(self, ref: CampaignRef, commands: Sequence[Claimed]) -> None:
        """Release commands that were claimed and not sent. They can be claimed again now, with the same attempt."""
        if commands:
            await self._release(ref, commands, delay=0)

    async def _record(self, ref: CampaignRef, times: Times, answers: Answers) -> None:
        """Mark and release rows, in two transactions that lock rows in the same order."""
        if answers.taken:
            async with tenant_transaction(self._pool, ref.tenant_id, generic_plans=True) as connection:
                await executions.mark_sent(connection, ref.tenant_id, ref.campaign_id, answers.taken, times)
                await reach(Failpoint.MARK_WRITTEN)
        metrics.publish_failed.inc(answers.failed)
        if answers.too_large and not await self._any_taken(ref, answers):
            await self._pause_too_large(ref, answers)
            return
        delay = min(self._settings.tick_interval, self._settings.lease)
        for commands, refusal in (
            (answers.refused, Refusal.REJECTED),
            (answers.ended_session, Refusal.CONNECTION_ENDED),
            (answers.too_large, Refusal.TOO_LARGE),
            (answers.unanswered, None),
        ):
            if commands:
                await self._release(ref, commands, delay=delay, refusal=refusal)
        self._log_failures(ref, answers)

    def _log_failures(self, ref: CampaignRef, answers: Answers) -> None:
        for commands, refusal in (
            (answers.ended_session, Refusal.CONNECTION_ENDED),
            (answers.too_large, Refusal.TOO_LARGE),
        ):
            if commands:
                _log.warning(
                    "ota_devices_refused",
                    campaign_id=ref.campaign_id,
                    tenant_id=ref.tenant_id,
                    devices=len(commands),
                    device_ids=[command.device_id for command in commands[:MAX_DEVICES_NAMED]],
                    reason=TEXT[refusal],
                )
        log_once = self._command_session.failing_campaigns
        if not answers.refused and not answers.unanswered:
            log_once.clear(ref.campaign_id)
        elif log_once.is_new(ref.campaign_id, "refused" if answers.refused else "unanswered"):
            _log.warning(
                "ota_mqtt_publish_failed",
                campaign_id=ref.campaign_id,
                tenant_id=ref.tenant_id,
                devices=answers.failed,
                error=answers.problem,
            )

    async def _any_taken(self, ref: CampaignRef, answers: Answers) -> bool:
        """Whether the broker has ever accepted the campaign's command for one of its devices."""
        if answers.taken:
            return True
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            return await counters.any_taken(connection, ref.tenant_id, ref.campaign_id)

    async def _pause_too_large(self, ref: CampaignRef, answers: Answers) -> None:
        """Pause a campaign whose command is too large for every device. No device counts as refused for that."""
        await self.give_back(ref, [*answers.refused, *answers.ended_session, *answers.too_large, *answers.unanswered])
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            campaign = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
            reason = (
                f"the campaign's command is larger than the broker takes: {answers.limit}. Raise the broker's maximum "
                "packet size and start the campaign again, or abort it and create one with a shorter file_url"
            )
            stopped = await stop.hold(connection, ref.tenant_id, stop.counters_of(campaign), reason)
        if stopped:
            stopped.announce()

    async def _release(
        self, ref: CampaignRef, commands: Sequence[Claimed], *, delay: float, refusal: Refusal | None = None
    ) -> None:
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            await executions.release(connection, ref.tenant_id, ref.campaign_id, commands, delay=delay, refusal=refusal)

    async def _publish(self, ref: CampaignRef, batch: Batch, handed_over: asyncio.Event) -> Answers:
        """Publish before the lease ends. After that, another worker may have claimed the devices."""
        if not batch.commands:
            return Answers()
        try:
            async with asyncio.timeout(self._seconds_left(batch)):
                session = await self._command_session.session()
        except (BrokerUnavailable, TimeoutError) as error:
            problem = str(error) or "the broker does not let us in"
            return Answers(unanswered=list(batch.commands), problem=problem)
        answers = await publish_batch(
            session,
            ref,
            batch,
            backpressure=self._command_session.backpressure,
            timeout=self._seconds_left(batch),
            braked=partial(self._is_braked, ref),
            handed_over=handed_over,
        )
        if answers.timed_out:
            await self._command_session.drop(session)
        return answers

    async def _is_braked(self, ref: CampaignRef) -> bool:
        """Whether a halt or a freeze stops the campaign now."""
        if self._passes_brakes:
            return False
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            return (await admission_of(connection, self._settings, ref.tenant_id, ref.campaign_id)).braked

    def _seconds_left(self, batch: Batch) -> float:
        return min(self._settings.publish_timeout, batch.lease_ends - time.monotonic())
