"""One campaign that is looked at: one task reads it once a tick, and wakes the streams if something changed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from rollwave import metrics
from rollwave.api.live.news import GONE, SIGNED_OUT, Beat, End, FieldNews, News, Snapshot, Trouble
from rollwave.domain.overview.field import Field, changes
from rollwave.errors import NotFound
from rollwave.log import get_logger
from rollwave.store.access import Grant
from rollwave.store.outage import is_outage

BEAT_SECONDS = 5.0
"""Time between two beats of a stream."""
AWAY_SECONDS = 5.0
"""Time between two reads while the database is unavailable."""
_KEPT_CHANGES = 60
"""Number of changes of the field that are kept for streams whose reader is slow."""

_log = get_logger("live")


class Readers(NamedTuple):
    """How to read a campaign, by tenant and id. Each limits how many it reads at a time."""

    overview: Callable[[str, int], Awaitable[Snapshot]]
    field: Callable[[str, int], Awaitable[Field]]


class Subscription:
    """One stream. Its reader gets the newest state whenever it is ready for one, so a slow one needs no queue.

    ``grant``: the key, with its present role.
    """

    def __init__(
        self, channel: Channel, grant: Grant, *, seen: str | None, fields: bool, ends_in: float | None
    ) -> None:
        self.grant = grant
        self.fields = fields
        self._channel = channel
        self._seen = seen
        self._ends_at = None if ends_in is None else time.monotonic() + ends_in
        self._end: End | None = None
        self._closed = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There may be news."""
        self._woken.set()

    def end(self, why: str) -> None:
        """Tell the client why the stream ends, after what it is told now."""
        self._end = self._end or End(why)
        self.close()

    def close(self) -> None:
        """Close the stream. The client connects again, unless it was told why the stream ends."""
        self._closed = True
        self._woken.set()

    async def news(self) -> AsyncGenerator[News]:
        """Everything that the client is told, the newest state first."""
        trouble, place, beat_at = "", 0, time.monotonic() + BEAT_SECONDS
        while not self._closed:
            self._woken.clear()
            if self._channel.trouble != trouble:
                trouble = self._channel.trouble
                yield Trouble(trouble)
            snapshot = self._channel.snapshot
            if snapshot is not None and snapshot.id != self._seen:
                self._seen = snapshot.id
                yield snapshot
            if self.fields:
                for each in self._channel.field_news(place):
                    place = each.sequence
                    yield each
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + BEAT_SECONDS
                yield Beat(datetime.now(UTC))
            await self._wait(beat_at)
        if self._end is not None:
            yield self._end

    async def _wait(self, beat_at: float) -> None:
        now = time.monotonic()
        if self._ends_at is not None and now >= self._ends_at:
            self.end(SIGNED_OUT)
        until = beat_at if self._ends_at is None else min(beat_at, self._ends_at)
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._woken.wait()
        except TimeoutError:
            return


class Channel:
    """A campaign with its streams.

    Attributes:
        snapshot: the last one; None: it was not read yet.
        trouble: why it cannot be read now; empty: it can.
    """

    def __init__(self, readers: Readers, tenant_id: str, campaign_id: int, *, tick: float) -> None:
        self.snapshot: Snapshot | None = None
        self.trouble = ""
        self.streams: set[Subscription] = set()
        self._readers = readers
        self._key = tenant_id, campaign_id
        self._tick = tick
        self._read_at = 0.0
        self._field: Field | None = None
        self._changes: deque[FieldNews] = deque(maxlen=_KEPT_CHANGES)
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_current(self) -> bool:
        """Whether the snapshot is not older than two ticks."""
        return self.snapshot is not None and time.monotonic() - self._read_at < 2 * self._tick

    async def join(self, stream: Subscription) -> None:
        """Add a stream, and wait for the first snapshot.

        Raises:
            NotFound: this tenant has no such campaign.
            Exception: the campaign cannot be read.
        """
        self.streams.add(stream)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await asyncio.shield(self._first)

    def leave(self, stream: Subscription) -> None:
        """Remove a stream. The task ends with the last one."""
        self.streams.discard(stream)
        if not self.streams and self._task is not None:
            self._task.cancel()
            self._task = None

    def field_news(self, place: int) -> Iterator[FieldNews]:
        """The changes after the sequence ``place``; 0, or too long ago: only where the stream is now."""
        if self._field is None or place == self._field.sequence:
            return
        missed = [each for each in self._changes if each.since >= place] if place else []
        if missed and missed[0].since == place:
            yield from missed
        else:
            yield FieldNews.at(self._field)

    async def _run(self) -> None:
        while self.streams:
            began = time.monotonic()
            changed = await self._look()
            if changed:
                for each in tuple(self.streams):
                    each.wake()
            # A read that takes long is followed by a pause as long, so that looking costs at most half the time.
            took = time.monotonic() - began
            await asyncio.sleep(AWAY_SECONDS if self.trouble else max(self._tick - took, took))

    async def _look(self) -> bool:
        """Read the campaign. Returns whether anything changed."""
        try:
            metrics.live_reads.inc()
            found = await self._readers.overview(*self._key)
            fields_changed = await self._look_at_field()
        except NotFound as error:
            self._failed(error)
            for each in tuple(self.streams):
                each.end(GONE)
            return False
        except Exception as error:  # noqa: BLE001  the stream says so, and it is read again
            if not is_outage(error):
                _log.exception("live_read_failed", campaign_id=self._key[1])
            self._failed(error)
            text = "The database is unavailable" if is_outage(error) else "The server cannot read this campaign"
            changed = self.trouble != text
            self.trouble = text
            return changed
        changed = self.snapshot is None or found.id != self.snapshot.id or bool(self.trouble) or fields_changed
        if self.snapshot is None or found.id != self.snapshot.id:
            self.snapshot = found
        self.trouble, self._read_at = "", time.monotonic()
        if not self._first.done():
            self._first.set_result(None)
        return changed

    def _failed(self, error: Exception) -> None:
        if not self._first.done():
            self._first.set_exception(error)
            self._first.exception()  # if nobody waits any more, asyncio need not log it

    async def _look_at_field(self) -> bool:
        """Read the field if a stream wants it. Returns whether it changed."""
        if not any(each.fields for each in self.streams):
            self._field = None
            self._changes.clear()
            return False
        found = await self._readers.field(*self._key)
        before, self._field = self._field, found
        if before is None or (before.states == found.states and before.generation == found.generation):
            self._field = found if before is None else before
            return before is None
        news = changes(before, found)
        if news is None:
            self._changes.clear()
        else:
            self._changes.append(FieldNews(*news))
        return True
