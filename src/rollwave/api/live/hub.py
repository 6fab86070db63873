"""The live streams of a process: its limits, and the keys that its streams were opened with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

from starlette.exceptions import HTTPException

from rollwave import metrics
from rollwave.api.live.channel import Channel, Readers, Subscription
from rollwave.api.live.news import SIGNED_OUT, Snapshot
from rollwave.api.live.shared_reads import SharedReads
from rollwave.domain.overview.field import Field
from rollwave.log import get_logger
from rollwave.store import access
from rollwave.store.access import Grant
from rollwave.store.database import Pool
from rollwave.store.outage import is_outage

TICK_SECONDS = 1.0
"""Time between two reads of a campaign."""
KEY_SECONDS = 15.0
"""Time between two checks of the keys of open streams."""

_log = get_logger("live")


class Limits(NamedTuple):
    """Maximum numbers of open streams."""

    of_key: int = 200
    of_tenant: int = 1000
    of_process: int = 2000


class Hub:
    """Opens streams.

    Attributes:
        tick: seconds between two reads of a campaign.
        key_seconds: seconds between two checks of the keys of open streams.
        limits: how many streams may be open.
    """

    def __init__(
        self,
        pool: Pool,
        overview: Callable[[str, int], Awaitable[Snapshot]],
        field: Callable[[str, int], Awaitable[Field]],
    ) -> None:
        self.tick = TICK_SECONDS
        self.key_seconds = KEY_SECONDS
        self.limits = Limits()
        self._pool = pool
        self._overviews = SharedReads(overview)
        self._readers = Readers(self._overviews.fresh, field)
        self._channels: dict[tuple[str, int], Channel] = {}
        self._streams: set[Subscription] = set()
        self._checking: asyncio.Task[None] | None = None
        self._closed = False

    @asynccontextmanager
    async def follow(
        self,
        grant: Grant,
        campaign_id: int,
        *,
        seen: str | None = None,
        fields: bool = False,
        ends_in: float | None = None,
    ) -> AsyncIterator[Subscription]:
        """A stream about a campaign for the block.

        Args:
            grant: the key, which is checked again while the stream is open.
            seen: the id of the snapshot that the client has.
            fields: whether the client draws the device field.
            ends_in: seconds until the client's session ends; None: it has none.

        Raises:
            HTTPException: 429 or 503, with Retry-After: too many streams are open, or the server is stopping.
            NotFound: this tenant has no such campaign.
        """
        self._require_room(grant)
        key = grant.tenant_id, campaign_id
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = Channel(self._readers, *key, tick=self.tick)
        stream = Subscription(channel, grant, seen=seen, fields=fields, ends_in=ends_in)
        self._streams.add(stream)
        metrics.live_streams.inc()
        self._checking = self._checking or asyncio.create_task(self._check_keys())
        try:
            await channel.join(stream)
            yield stream
        finally:
            metrics.live_streams.dec()
            self._streams.discard(stream)
            channel.leave(stream)
            if not channel.streams and self._channels.get(key) is channel:
                del self._channels[key]
            if not self._streams and self._checking is not None:
                self._checking.cancel()
                self._checking = None

    async def look(self, tenant_id: str, campaign_id: int) -> Snapshot:
        """The campaign now: what its streams see, or read for all who look.

        Raises:
            NotFound: this tenant has no such campaign.
        """
        channel = self._channels.get((tenant_id, campaign_id))
        if channel is not None and channel.is_current:
            assert channel.snapshot is not None
            return channel.snapshot
        return await self._overviews.recent(tenant_id, campaign_id)

    async def read(self, tenant_id: str, campaign_id: int) -> Snapshot:
        """The campaign by a read that begins now, shared by those that wait for one: for the page after an action.

        Raises:
            NotFound: this tenant has no such campaign.
        """
        return await self._overviews.fresh(tenant_id, campaign_id)

    def close(self) -> None:
        """Close all streams, and open no more: the server is stopping. Their clients connect to another one."""
        self._closed = True
        for each in tuple(self._streams):
            each.close()

    def _require_room(self, grant: Grant) -> None:
        if self._closed:
            raise HTTPException(503, "The server is stopping.", {"Retry-After": "2"})
        if len(self._streams) >= self.limits.of_process:
            raise HTTPException(
                503, f"This server has {self.limits.of_process} open streams already.", {"Retry-After": "30"}
            )
        of_tenant = [each.grant for each in self._streams if each.grant.tenant_id == grant.tenant_id]
        if len(of_tenant) >= self.limits.of_tenant:
            raise HTTPException(
                429, f"This tenant has {self.limits.of_tenant} open streams already.", {"Retry-After": "30"}
            )
        if sum(each.key_id == grant.key_id for each in of_tenant) >= self.limits.of_key:
            raise HTTPException(429, f"This key has {self.limits.of_key} open streams already.", {"Retry-After": "30"})

    async def _check_keys(self) -> None:
        while True:
            await asyncio.sleep(self.key_seconds)
            by_tenant = defaultdict(list)
            for each in self._streams:
                by_tenant[each.grant.tenant_id].append(each)
            for tenant_id, streams in by_tenant.items():
                await self._check_keys_of(tenant_id, streams)

    async def _check_keys_of(self, tenant_id: str, streams: list[Subscription]) -> None:
        try:
            roles = await access.recheck_all(self._pool, tenant_id, {each.grant.key_id for each in streams})
        except Exception as error:  # noqa: BLE001  they are checked again
            if not is_outage(error):
                _log.exception("live_keys_not_checked")
            return
        for each in streams:
            role = roles.get(each.grant.key_id)
            if role is None:
                each.end(SIGNED_OUT)
            else:
                each.grant = replace(each.grant, role=role)
