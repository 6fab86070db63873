"""Claim, commit, publish, mark.

A claim is a short transaction under the campaign's lock. No connection is held while the broker is spoken to.
A worker that dies in between leaves a lease that runs out, and the device is sent the same attempt again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.domain.policy.admission import admit
from rollwave.engine.dispatch.batch import Batch, Sent
from rollwave.engine.dispatch.claim import Claims, Count
from rollwave.engine.dispatch.delivery import Delivery
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, listeners, remaining
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times

_log = get_logger("dispatcher")

SHORTEST_WAIT_SECONDS = 0.01
"""Seconds in which there is never more to send."""


class Dispatch:
    """Sends one campaign's commands, as far as its pace, waves and caps allow now."""

    def __init__(
        self,
        pool: Pool,
        publisher: CommandSession,
        settings: Settings,
        count: Count,
        stopping: Callable[[], bool] = lambda: False,
        *,
        steps: int = 1,
    ) -> None:
        """``count``: counts a campaign's devices, where nobody has.

        ``steps``: parts in which a tick's devices go out, one after the other; 1: all at once.
        """
        self._pool = pool
        self._settings = settings
        self._publisher = publisher
        self._claimer = Claims(pool, settings, count, steps=steps)
        self._sender = Delivery(pool, publisher, settings)
        self._stopping = stopping

    async def dispatch(self, ref: CampaignRef) -> float:
        """Send what may go now, for a turn. Returns the seconds until there may be more; 0: there is more now.

        One batch is claimed while the one before it is handed over, and what is answered for is marked (``Conveyor``).
        A broker that is away claims nothing.
        """
        try:
            await self._publisher.session()
        except BrokerUnavailable:
            return SOON_SECONDS
        wait, turn_ends = SOON_SECONDS, time.monotonic() + TURN_SECONDS
        conveyor = Pipeline(
            self._sender, ref, most=self._settings.claim_batch, still_runs=partial(self._still_runs, ref)
        )
        try:
            while not self._stopping():
                batch = await self._claimer.claim(ref)
                if not await conveyor.put(batch):
                    break
                if not (batch.commands or batch.skipped):
                    wait = max(batch.retry_in, SHORTEST_WAIT_SECONDS)
                    break
                if time.monotonic() >= turn_ends:
                    wait = 0.0
                    break
        finally:
            # Also when claiming has failed: what is on its way is marked before anybody claims it again.
            await conveyor.finish()
        if conveyor.taken:
            await self._announce(ref, conveyor.taken)
        return wait

    async def _still_runs(self, ref: CampaignRef) -> bool:
        """Whether more may go: the campaign has not been stopped since, and reports can come in."""
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            row = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
            heard = await listeners.heard(connection, self._settings.listener_slots)
        campaign = under_policy(row, self._settings)
        return admit(campaign.policy, campaign.facts(self._settings, heard=heard)).sends

    async def _announce(self, ref: CampaignRef, sent: int) -> None:
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            left = await remaining.count_pending(connection, ref.tenant_id, ref.campaign_id)
        _log.info(
            "ota_devices_dispatched",
            campaign_id=ref.campaign_id,
            tenant_id=ref.tenant_id,
            dispatched=sent,
            remaining_pending=left,
        )


MAX_BATCHES_AWAITING_ANSWERS = 1
"""Batches that may wait to be answered for and written down beside the one that is handed over."""


class Pipeline:
    """Of one campaign, for one turn. ``most``: commands that may be on their way at once, the size of a batch."""

    def __init__(
        self, sender: Delivery, ref: CampaignRef, *, most: int, still_runs: Callable[[], Awaitable[bool]]
    ) -> None:
        self._sender = sender
        self._due = ref
        self._most = most
        self._still_runs = still_runs
        self._handing: asyncio.Task[bool] | None = None
        self._settling: deque[asyncio.Task[None]] = deque()
        self._unanswered = 0
        self._answer = asyncio.Event()
        self._stuck = False
        self._begun = 0
        self.taken = 0
        """Commands that the broker took, of all that it has answered for."""

    async def put(self, batch: Batch) -> bool:
        """Begin with ``batch``, once all of the one before it is handed over and there is room.

        False: the campaign no longer runs, or the broker takes nothing. What was not handed over is given back.
        """
        half = -(-self._most // 2)
        parts = [batch.part(first, first + half) for first in range(0, len(batch.commands), half)]
        try:
            goes = await self._all_handed_over()
            await self._settled_but_few()
            # What goes first was claimed just now, and that the campaign runs was seen then.
            goes = goes and (not parts or await self._may_go(parts[0], seen=not self._begun))
        except BaseException:
            await self._sender.give_back(self._due, batch.commands)
            raise
        if not goes:
            await self._sender.give_back(self._due, batch.commands)
        elif parts:
            self._handing = asyncio.create_task(self._hand_over(parts))
        return goes

    async def finish(self) -> None:
        """Wait for whatever is on its way, and until what became of it is written down."""
        try:
            await self._all_handed_over()
        finally:
            settled = await asyncio.gather(*self._settling, return_exceptions=True)
        for trouble in settled:
            if trouble is not None:
                raise trouble

    async def _all_handed_over(self) -> bool:
        handing, self._handing = self._handing, None
        return handing is None or await handing

    async def _settled_but_few(self) -> None:
        while self._settling and (len(self._settling) > MAX_BATCHES_AWAITING_ANSWERS or self._settling[0].done()):
            await self._settling.popleft()

    async def _may_go(self, part: Batch, *, seen: bool = False) -> bool:
        """Wait for room. ``seen``: that the campaign runs, just now."""
        while self._unanswered + len(part.commands) > self._most:
            self._answer.clear()
            await self._answer.wait()
        return not self._stuck and (seen or await self._still_runs())

    async def _hand_over(self, parts: Sequence[Batch]) -> bool:
        """Hand over a batch, of which the first part may go. False: what is left of it may not."""
        begun: list[asyncio.Task[Sent]] = []
        try:
            for part in parts:
                if begun and not await self._may_go(part):
                    break
                handed = asyncio.Event()
                metrics.claims_in_flight.inc(len(part.commands))
                begun.append(asyncio.create_task(self._publish(part, handed)))
                await handed.wait()
        finally:
            self._settle_later(parts[: len(begun)], begun)
            rest = [command for part in parts[len(begun) :] for command in part.commands]
            await self._sender.give_back(self._due, rest)
        return len(begun) == len(parts)

    async def _publish(self, part: Batch, handed: asyncio.Event) -> Sent:
        self._begun += 1
        self._unanswered += len(part.commands)
        try:
            sent = await self._sender.publish(self._due, part, handed, self._still_runs)
        except BaseException:
            self._stuck = True
            raise
        finally:
            handed.set()
            self._unanswered -= len(part.commands)
            self._answer.set()
        self.taken += len(sent.taken)
        self._stuck = self._stuck or bool(sent.unanswered and not sent.taken)
        return sent

    def _settle_later(self, parts: Sequence[Batch], begun: Sequence[asyncio.Task[Sent]]) -> None:
        if not parts:
            return
        number = sum(len(part.commands) for part in parts)
        before = self._settling[-1] if self._settling else None
        settling = asyncio.create_task(self._settle(parts[0].times, begun, before))
        settling.add_done_callback(lambda _: metrics.claims_in_flight.dec(number))
        self._settling.append(settling)

    async def _settle(
        self, times: Times, begun: Sequence[asyncio.Task[Sent]], before: asyncio.Task[None] | None
    ) -> None:
        """Once all parts are answered for and the batch ``before`` is settled, write down what became of them."""
        ended = await asyncio.gather(*begun, return_exceptions=True)
        answers = [each for each in ended if isinstance(each, Sent)]
        self._stuck = self._stuck or not any(each.taken for each in answers)
        if before is not None:
            await asyncio.wait({before})
        if answers:
            await self._sender.settle(self._due, times, answers)
        for each in ended:
            error = each.error if isinstance(each, Sent) else each
            if error is not None:
                raise error
