"""Pages of the devices of a campaign that have something in common, such as the cause of their failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from rollwave.domain.execution import ExecutionStatus
from rollwave.store import device_labels, views
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document, with_moments
from rollwave.store.queries import load

_sql = load("campaign_devices")

MAX_COUNTED = 100_000
"""Maximum number of devices that are counted for a filter."""

MAX_LABELLED = 10_000
"""Maximum number of devices whose labels are read for one page."""

_BATCH = 1000
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which devices of a campaign. None: any.

    Attributes:
        code, reason: of the last failed attempt; empty: the device has none.
        wave, segment: the number of its wave, and of its segment. Devices of a campaign without a policy document have
            none.
        labels: keys and values of labels, all of which a device has; an empty value: it does not have the label.
        version: what the device runs, as it last said; empty: it is not known.
    """

    status: ExecutionStatus | None = None
    code: str | None = None
    reason: str | None = None
    wave: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    version: str | None = None
    segment: int | None = None

    @property
    def of_rows(self) -> tuple[str | None, str | None, int | None, int | None]:
        """What the executions say: code, reason, wave and segment."""
        return self.code, self.reason, self.wave, self.segment

    @property
    def of_labels(self) -> bool:
        """Whether it takes the devices' labels to decide."""
        return bool(self.labels) or self.version is not None

    def fits(self, device: device_labels.Labels) -> bool:
        """Whether the labels of a device are as asked."""
        fits_labels = all(device.of.get(key, "") == value for key, value in self.labels)
        return fits_labels and (self.version is None or (device.version or "") == self.version)


class Found(NamedTuple):
    """A page of devices. ``total`` None: they were not counted. A page may be short and have a next one."""

    rows: list[Document]
    total: int | None
    next_cursor: str | None


async def find(
    pool: Pool, tenant_id: str, campaign_id: int, chosen: Filter, *, limit: int, cursor: str | None = None
) -> Found:
    """A page of a campaign's devices, ordered by id.

    Raises:
        NotFound: this tenant has no such campaign.
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    if chosen == Filter(chosen.status):
        shown = await views.devices(pool, tenant_id, campaign_id, status=chosen.status, limit=limit, cursor=cursor)
        return Found(shown.rows, shown.total, shown.next_cursor)
    async with tenant_transaction(pool, tenant_id, timeout=_SECONDS) as connection:
        await views.require(connection, tenant_id, campaign_id)
        devices = _Devices(connection, tenant_id, campaign_id, chosen)
        if chosen.of_labels:
            return await _by_labels(devices, limit, cursor)
        records = await devices.after(cursor, limit + 1)
        rows = [with_moments(record) for record in records[:limit]]
        return Found(rows, await devices.count(), rows[-1]["device_id"] if len(records) > limit else None)


async def labels(pool: Pool, tenant_id: str, device_ids: Sequence[str]) -> dict[str, device_labels.Labels]:
    """The labels of a page of devices, by id.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    async with tenant_transaction(pool, tenant_id, timeout=_SECONDS) as connection:
        return await device_labels.read(connection, tenant_id, device_ids)


async def _by_labels(devices: _Devices, limit: int, cursor: str | None) -> Found:
    """Read devices in batches, until the page is full or the maximum is reached."""
    rows: list[Document] = []
    for _ in range(MAX_LABELLED // _BATCH):
        records = await devices.after(cursor, _BATCH)
        labels = await devices.labels([record["device_id"] for record in records])
        for record in records:
            if devices.chosen.fits(labels.get(record["device_id"], device_labels.NONE)):
                if len(rows) == limit:
                    return Found(rows, None, cursor)
                rows.append(with_moments(record))
            cursor = record["device_id"]
        if len(records) < _BATCH:
            return Found(rows, None, None)
    return Found(rows, None, cursor)


@dataclass(frozen=True, slots=True)
class _Devices:
    """The devices of a campaign whose executions are as asked."""

    connection: Connection
    tenant_id: str
    campaign_id: int
    chosen: Filter

    @property
    def _kind(self) -> str:
        return "_looked_for" if self.chosen.status in views.LOOKED_FOR else ""

    async def after(self, cursor: str | None, limit: int) -> Sequence[asyncpg.Record]:
        """The next devices after an id."""
        rows: Sequence[asyncpg.Record] = await self.connection.fetch(
            _sql[f"page{self._kind}"], *self._key, cursor, limit, *self.chosen.of_rows
        )
        return rows

    async def count(self) -> int:
        """Their number, at most ``MAX_COUNTED``."""
        arguments = *self._key, MAX_COUNTED, *self.chosen.of_rows
        number: int = await self.connection.fetchval(_sql[f"count{self._kind}"], *arguments)
        return number

    async def labels(self, device_ids: Sequence[str]) -> dict[str, device_labels.Labels]:
        """The labels of these devices."""
        return await device_labels.read(self.connection, self.tenant_id, device_ids)

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.tenant_id, self.campaign_id, self.chosen.status
