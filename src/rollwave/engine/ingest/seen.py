"""Chooses the devices whose last report and version are stored with a batch: each at most once an hour."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rollwave.domain.execution import TERMINAL, ExecutionStatus
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.reports.parse import Report
from rollwave.store.executions import Effect
from rollwave.store.labels import FRESH_SECONDS, Seen

MAX_DEVICES_REMEMBERED = 100_000
"""Maximum number of devices of which it is remembered when they were stored. Of others, PostgreSQL is asked."""

DEFERRED_SECONDS = 600.0
"""Seconds for which a device in progress is not stored: most end before, so that they are stored once and not twice."""


def add_seen(seen: dict[DeviceId, Seen], more: Mapping[DeviceId, Seen]) -> None:
    """Add what later reports of the same batch say. A version of an earlier report stays if they have none."""
    for device_id, each in more.items():
        before = seen.get(device_id, each)
        seen[device_id] = Seen(device_id, each.succeeded_in or before.succeeded_in, each.version or before.version)


class SeenDevices:
    """Remembers which devices were stored, so that most batches need no statement for it.

    It uses the process's clock, and only to leave out a repetition.
    """

    def __init__(self) -> None:
        self._stored: dict[tuple[TenantId, DeviceId], _Stored] = {}
        self._deferred: dict[tuple[TenantId, DeviceId], float] = {}

    def to_store(
        self, tenant_id: TenantId, reported: Iterable[tuple[DeviceId, Report, Effect]]
    ) -> dict[DeviceId, Seen]:
        """What to store of the devices that have ``reported``, by device. An unknown execution says nothing."""
        found: dict[DeviceId, Seen] = {}
        now = time.monotonic()
        fresh_from = now - FRESH_SECONDS
        for device_id, report, effect in reported:
            if effect.was is None:
                continue
            stored = self._stored.get((tenant_id, device_id))
            succeeded_in = report.campaign_id if effect.became is ExecutionStatus.SUCCESS else None
            stale = stored is None or stored.at <= fresh_from
            says_version = report.version not in {None, stored.version if stored else None}
            if stale and not says_version and report.status not in TERMINAL:
                stale = not self._defer((tenant_id, device_id), now)
            if stale or succeeded_in is not None or says_version:
                add_seen(found, {device_id: Seen(device_id, succeeded_in, report.version)})
        return found

    def _defer(self, key: tuple[TenantId, DeviceId], now: float) -> bool:
        """Whether the time of a report may be stored with a later one. False where too many devices wait for that."""
        since = self._deferred.get(key)
        if since is not None:
            return now - since < DEFERRED_SECONDS
        if len(self._deferred) >= MAX_DEVICES_REMEMBERED:
            oldest = next(iter(self._deferred))
            if now - self._deferred[oldest] < FRESH_SECONDS:
                return False
            del self._deferred[oldest]
        self._deferred[key] = now
        return True

    def stored(self, tenant_id: TenantId, seen: Mapping[DeviceId, Seen]) -> None:
        """Note that these devices were stored now."""
        now = time.monotonic()
        for device_id, each in seen.items():
            key = tenant_id, device_id
            self._deferred.pop(key, None)
            before = self._stored.pop(key, None)  # the newest is last
            version = each.version or (before.version if before and each.succeeded_in is None else None)
            self._stored[key] = _Stored(now, version)
        while len(self._stored) > MAX_DEVICES_REMEMBERED:
            del self._stored[next(iter(self._stored))]


class _Stored(NamedTuple):
    """When a device was stored, by this process's clock, and the version that it reported. None: not known here."""

    at: float
    version: str | None
