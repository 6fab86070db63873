"""The fields of campaigns, kept for all who look at them: one read serves every viewer of a process."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import time
from collections import OrderedDict
from dataclasses import dataclass

from rollwave.domain.overview.field import Field
from rollwave.store import field as stored
from rollwave.store.database import Pool

SHARE_OF_TIME = 0.05
"""Maximum share of the time in which PostgreSQL reads the field of one campaign for one process."""

MIN_AGE_SECONDS = 0.25
"""A field that is not older than this is not read again."""

READS_AT_ONCE = 2
"""Maximum number of connections with which a process reads fields: a worker shares the pool."""

MAX_BYTES = 64 * 1024 * 1024
"""Maximum number of devices in all fields that a process keeps."""

_GZIP_LEVEL = 5


@dataclass(slots=True)
class _Kept:
    """The last field of a campaign. ``took``: seconds that reading it took; ``read_at``: of this process's clock."""

    field: Field | None = None
    took: float = 0.0
    read_at: float = 0.0
    zipped: bytes | None = None
    reading: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    def is_fresh(self) -> bool:
        age = time.monotonic() - self.read_at
        return self.field is not None and age <= max(MIN_AGE_SECONDS, self.took / SHARE_OF_TIME)


class Fields:
    """Reads fields, and keeps the last ones. Of several callers at the same time one reads, and the others wait."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._at_once = asyncio.Semaphore(READS_AT_ONCE)
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()

    async def read(self, tenant_id: str, campaign_id: int) -> Field:
        """The field of a campaign, at most 20 times as old as reading it took, or a quarter of a second.

        Raises:
            NotFound: this tenant has no such campaign.
        """
        return (await self._read(tenant_id, campaign_id))[0]

    async def read_zipped(self, tenant_id: str, campaign_id: int) -> tuple[Field, bytes]:
        """As :meth:`read`, also compressed with gzip. Each field is compressed once."""
        found, kept = await self._read(tenant_id, campaign_id)
        if kept.field is found and kept.zipped is not None:
            return found, kept.zipped
        zipped = await asyncio.to_thread(gzip.compress, found.states, _GZIP_LEVEL)
        if kept.field is found:
            kept.zipped = zipped
        return found, zipped

    async def _read(self, tenant_id: str, campaign_id: int) -> tuple[Field, _Kept]:
        key = tenant_id, campaign_id
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        try:
            async with kept.reading:
                if not kept.is_fresh():
                    await self._read_into(kept, tenant_id, campaign_id)
                assert kept.field is not None  # it is fresh
                return kept.field, kept
        except BaseException:
            self._kept.pop(key, None)  # such as a campaign that was deleted
            raise
        finally:
            self._drop_oldest()

    async def _read_into(self, kept: _Kept, tenant_id: str, campaign_id: int) -> None:
        async with self._at_once:
            began = time.monotonic()
            kept.field, kept.zipped = await stored.read(self._pool, tenant_id, campaign_id), None
            kept.read_at = time.monotonic()
            kept.took = kept.read_at - began

    def _drop_oldest(self) -> None:
        while len(self._kept) > 1 and self._size() > MAX_BYTES:
            self._kept.popitem(last=False)

    def _size(self) -> int:
        return sum(len(each.field.states) + 1000 for each in self._kept.values() if each.field is not None)
