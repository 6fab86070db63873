"""A campaign's batches on their way: while one is published, the one before it is settled."""

from __future__ import annotations

import asyncio

from rollwave.engine.sender import Batch, Sender, Sent
from rollwave.store.campaigns import Due


class Conveyor:
    """Publishes one batch at a time: of a campaign that is stopped no more than that one goes out."""

    def __init__(self, sender: Sender, due: Due) -> None:
        self._sender = sender
        self._due = due
        self._publishing: asyncio.Task[tuple[Batch, Sent]] | None = None
        self._settling: asyncio.Task[None] | None = None
        self.taken = 0
        """Commands that the broker took, of all batches that it has answered for."""

    def start(self, batch: Batch) -> None:
        """Begin to publish; the batch before it has been answered for."""
        self._publishing = asyncio.create_task(self._publish(batch))

    async def answered(self) -> int | None:
        """How many commands of the batch on its way the broker took, once it has answered. None: none was on its way.

        What became of that batch is being written down now, and of the one before it has been.
        """
        if self._publishing is None:
            return None
        publishing, self._publishing = self._publishing, None
        batch, sent = await publishing
        self.taken += len(sent.taken)
        before, self._settling = self._settling, asyncio.create_task(self._sender.settle(self._due, batch, sent))
        if before is not None:
            await before
        return len(sent.taken)

    async def finish(self) -> None:
        """Wait for whatever is on its way, and until what became of it is written down."""
        try:
            await self.answered()
        finally:
            if self._settling is not None:
                await self._settling

    async def _publish(self, batch: Batch) -> tuple[Batch, Sent]:
        return batch, await self._sender.publish(self._due, batch)
