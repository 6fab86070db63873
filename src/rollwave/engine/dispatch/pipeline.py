"""Sends one campaign's commands: claim, commit, publish, mark.

A claim is a short transaction under the campaign's lock. No database connection is held while the broker answers. If
the worker dies in between, the lease ends and the device is sent the same attempt again.

Three things overlap: publishing one half-batch, claiming the next batch, and recording the last answers. The campaign
is checked again before each half, so after a stop at most one batch per worker still goes out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.engine.dispatch.claim import Claims, Count
from rollwave.engine.dispatch.delivery import Delivery
from rollwave.engine.dispatch.permission import admission_of, closed_to
from rollwave.engine.dispatch.session import Answers, Batch, CommandSession
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import counters
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times

_log = get_logger("dispatcher")

SHORTEST_WAIT_SECONDS = 0.01
"""Minimum number of seconds until a campaign is looked at again."""


StillRuns: TypeAlias = Callable[[CampaignRef], Awaitable[bool]]
"""Asks whether more commands of the campaign may be sent."""


class Dispatch:
    """Sends one campaign's commands, as far as its pace, waves and caps allow now."""

    def __init__(
        self,
        pool: Pool,
        command_session: CommandSession,
        settings: Settings,
        count: Count,
        stopping: Callable[[], bool] = lambda: False,
        *,
        steps: int = 1,
        turn_seconds: float = TURN_SECONDS,
        still_runs: StillRuns | None = None,
    ) -> None:
        """Make one for a worker.

        Args:
            count: counts a campaign's devices if they have not been counted yet.
            stopping: whether the worker stops; then nothing more is claimed.
            steps: number of parts in which a tick's devices are sent to, one after the other; 1: all at once.
            turn_seconds: maximum time for one campaign before others get their turn.
            still_runs: called before each half-batch, before the database is asked.
        """
        self._pool = pool
        self._turn_seconds = turn_seconds
        self._ask_first = still_runs
        self._settings = settings
        self._command_session = command_session
        self._claims = Claims(pool, settings, count, steps=steps)
        self._delivery = Delivery(pool, command_session, settings)
        self._stopping = stopping

    async def dispatch(self, ref: CampaignRef) -> float:
        """Send to the devices that may be sent to now, for one turn. Returns the seconds until there may be more.

        While the broker is unavailable, nothing is claimed.
        """
        try:
            await self._command_session.session()
        except BrokerUnavailable:
            return SOON_SECONDS
        wait, turn_ends = SOON_SECONDS, time.monotonic() + self._turn_seconds
        pipeline = Pipeline(
            self._delivery,
            ref,
            max_unanswered=self._settings.claim_batch,
            may_go=partial(self._may_go, ref),
        )
        try:
            while not self._stopping():
                batch = await self._claims.claim(ref)
                if not await pipeline.put(batch):
                    break
                if not (batch.commands or batch.skipped):
                    wait = max(batch.retry_in, SHORTEST_WAIT_SECONDS)
                    break
                if time.monotonic() >= turn_ends:
                    wait = 0.0
                    break
        finally:
            # Also if a claim fails: published commands are marked before the next claim.
            await pipeline.finish()
        if pipeline.taken:
            await self._announce(ref, pipeline.taken)
        return wait

    async def still_runs(self, ref: CampaignRef) -> bool:
        """Whether more commands may be sent: no gate is closed that applies to every command of the campaign."""
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            return (await admission_of(connection, self._settings, ref.tenant_id, ref.campaign_id)).sends

    async def _may_go(self, ref: CampaignRef, batch: Batch) -> bool:
        """Whether the campaign sends, without an edit, a closed window or a quarantine since the claim of the batch."""
        if self._ask_first is not None and not await self._ask_first(ref):
            return False
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            key = ref.tenant_id, ref.campaign_id
            closed = await closed_to(connection, self._settings, *key, batch.segments, revision=batch.revision)
        return closed is not None and not closed

    async def _announce(self, ref: CampaignRef, sent: int) -> None:
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            left = await counters.count_pending(connection, ref.tenant_id, ref.campaign_id)
        _log.info(
            "ota_devices_dispatched",
            campaign_id=ref.campaign_id,
            tenant_id=ref.tenant_id,
            dispatched=sent,
            remaining_pending=left,
        )


MAX_BATCHES_AWAITING_ANSWERS = 1
"""Maximum number of batches that wait for answers or are being recorded, beside the one that is being published."""


class Pipeline:
    """The batches of one campaign that are being sent, for one turn.

    A batch is published in two halves. ``max_unanswered``: maximum number of commands without an answer, and the size
    of a batch. ``may_go``: asks whether the commands of a part of a batch may be sent.
    """

    def __init__(
        self,
        delivery: Delivery,
        ref: CampaignRef,
        *,
        max_unanswered: int,
        may_go: Callable[[Batch], Awaitable[bool]],
    ) -> None:
        self._delivery = delivery
        self._may_go = may_go
        self._ref = ref
        self._max_unanswered = max_unanswered
        self._publishing: asyncio.Task[bool] | None = None
        self._recording: deque[asyncio.Task[None]] = deque()
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._nothing_taken = False
        self.taken = 0
        """The number of commands that the broker has accepted so far."""

    async def put(self, batch: Batch) -> bool:
        """Begin to publish ``batch``, as soon as the previous one is in the session's queue and there is room.

        Returns False if the campaign no longer runs or the broker accepts nothing. Commands that were not published are
        then released.
        """
        half = -(-self._max_unanswered // 2)
        parts = [batch.part(first, first + half) for first in range(0, len(batch.commands), half)]
        try:
            may_go = await self._previous_handed_over()
            await self._previous_recorded()
            # Also for the first part: a halt may have been committed since the claim.
            may_go = may_go and (not parts or await self._may_publish(parts[0]))
        except BaseException:
            await self._delivery.give_back(self._ref, batch.commands)
            raise
        if not may_go:
            await self._delivery.give_back(self._ref, batch.commands)
        elif parts:
            self._publishing = asyncio.create_task(self._publish_parts(parts))
        return may_go

    async def finish(self) -> None:
        """Wait until everything is answered and recorded. Raises the first error."""
        try:
            await self._previous_handed_over()
        finally:
            errors = await asyncio.gather(*self._recording, return_exceptions=True)
        for error in errors:
            if error is not None:
                raise error

    async def _previous_handed_over(self) -> bool:
        """Returns False if a part of the previous batch may not be sent."""
        publishing, self._publishing = self._publishing, None
        return publishing is None or await publishing

    async def _previous_recorded(self) -> None:
        while self._recording and (len(self._recording) > MAX_BATCHES_AWAITING_ANSWERS or self._recording[0].done()):
            await self._recording.popleft()

    async def _may_publish(self, part: Batch) -> bool:
        """Wait for room. Returns whether the part may be sent."""
        while self._unanswered + len(part.commands) > self._max_unanswered:
            self._answered.clear()
            await self._answered.wait()
        return not self._nothing_taken and await self._may_go(part)

    async def _publish_parts(self, parts: Sequence[Batch]) -> bool:
        """Publish a batch whose first part may be sent. Returns False if the rest may not, and releases it."""
        begun: list[asyncio.Task[Answers]] = []
        try:
            for part in parts:
                if begun and not await self._may_publish(part):
                    break
                handed_over = asyncio.Event()
                metrics.claims_in_flight.inc(len(part.commands))
                begun.append(asyncio.create_task(self._publish(part, handed_over)))
                await handed_over.wait()
        finally:
            self._record_later(parts[: len(begun)], begun)
            rest = [command for part in parts[len(begun) :] for command in part.commands]
            await self._delivery.give_back(self._ref, rest)
        return len(begun) == len(parts)

    async def _publish(self, part: Batch, handed_over: asyncio.Event) -> Answers:
        self._unanswered += len(part.commands)
        try:
            answers = await self._delivery.publish(self._ref, part, handed_over, partial(self._may_go, part))
        except BaseException:
            self._nothing_taken = True
            raise
        finally:
            handed_over.set()
            self._unanswered -= len(part.commands)
            self._answered.set()
        self.taken += len(answers.taken)
        self._nothing_taken = self._nothing_taken or bool(answers.unanswered and not answers.taken)
        return answers

    def _record_later(self, parts: Sequence[Batch], publishing: Sequence[asyncio.Task[Answers]]) -> None:
        """Start a task that waits for the answers to ``parts`` and records them."""
        if not parts:
            return
        commands = sum(len(part.commands) for part in parts)
        previous = self._recording[-1] if self._recording else None
        recording = asyncio.create_task(self._record(parts[0].times, publishing, previous))
        recording.add_done_callback(lambda _: metrics.claims_in_flight.dec(commands))
        self._recording.append(recording)

    async def _record(
        self, times: Times, publishing: Sequence[asyncio.Task[Answers]], previous: asyncio.Task[None] | None
    ) -> None:
        """Wait for the answers to all parts and for the ``previous`` batch, then record the answers."""
        results = await asyncio.gather(*publishing, return_exceptions=True)
        answers = [result for result in results if isinstance(result, Answers)]
        self._nothing_taken = self._nothing_taken or not any(part.taken for part in answers)
        if previous is not None:
            await asyncio.wait({previous})
        if answers:
            await self._delivery.record_answers(self._ref, times, answers)
        for result in results:
            error = result.error if isinstance(result, Answers) else result
            if error is not None:
                raise error
