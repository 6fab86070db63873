"""A campaign's batches on their way: handed over one after the other, half by half, and settled as they are answered.

While the broker answers for one half the next is handed over, so that its latency costs nothing. What is on its way
is never more than one batch, and nothing more goes before it is seen that the campaign still runs: after a stop,
one batch goes out at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from rollwave import metrics
from rollwave.engine.batch import Batch, Sent
from rollwave.engine.sender import Sender
from rollwave.store.campaigns import Due
from rollwave.store.executions import Times

SETTLING = 1
"""Batches that may wait to be answered for and written down beside the one that is handed over."""


class Conveyor:
    """Of one campaign, for one turn. ``most``: commands that may be on their way at once, the size of a batch."""

    def __init__(self, sender: Sender, due: Due, *, most: int, still_runs: Callable[[], Awaitable[bool]]) -> None:
        self._sender = sender
        self._due = due
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
        while self._settling and (len(self._settling) > SETTLING or self._settling[0].done()):
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
