"""Chooses what is stored about devices with a batch of reports: versions that they say, rarely when they were heard.

The end of a device in a campaign says both already, and its execution has it: nothing more is written for it. It is
stored when the campaign has ended (``engine/upkeep/device_fields.py``), and read from the execution until then.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport
from rollwave.store.executions import Effect
from rollwave.store.labels import FRESH_SECONDS

MAX_DEVICES_REMEMBERED = 100_000
"""Maximum number of devices of which it is remembered when they were stored. Of others, PostgreSQL is asked."""

DEFERRED_SECONDS = 600.0
"""Seconds for which the time of a report is not stored: most devices end before, and are then not stored at all."""

_SUCCESS, _FAILED = ExecutionStatus.SUCCESS, ExecutionStatus.FAILED


class SeenDevices:
    """Remembers which devices were stored, so that most batches need no statement for it.

    It uses the process's clock, and only to leave out a repetition.
    """

    def __init__(self) -> None:
        self._stored: dict[tuple[TenantId, DeviceId], _Stored] = {}
        self._deferred: dict[tuple[TenantId, DeviceId], float] = {}

    def add(
        self,
        tenant_id: TenantId,
        reports: Iterable[DeviceReport],
        effects: Iterable[Effect],
        found: dict[DeviceId, Said | None],
    ) -> None:
        """Add to ``found`` the devices to store, each with its version. None: only that it was heard.

        ``effects``: of the ``reports``, in the same order. A report of an unknown execution says nothing.
        """
        now = time.monotonic()
        fresh_from = now - FRESH_SECONDS
        for (device_id, report), effect in zip(reports, effects, strict=True):
            if effect.was is None:
                continue
            key = tenant_id, device_id
            stored = self._stored.get(key)
            if report.version is not None:
                said = Said(report.version, report.campaign_id, _SUCCESS in {effect.was, effect.became})
                if stored is None or stored.at <= fresh_from or stored.said != said:
                    found[device_id] = said
            elif effect.became is _SUCCESS or effect.became is _FAILED:
                # Its execution says when, and the version after a success.
                if found and effect.became is _SUCCESS:
                    found.pop(device_id, None)
                self._deferred.pop(key, None)
                self._remember(key, _Stored(now))
            elif device_id not in found and not (stored and stored.at > fresh_from) and not self._defer(key, now):
                found[device_id] = None

    def stored(self, tenant_id: TenantId, found: Mapping[DeviceId, Said | None]) -> None:
        """Note that these devices were stored now."""
        now = time.monotonic()
        for device_id, said in found.items():
            key = tenant_id, device_id
            self._deferred.pop(key, None)
            before = self._stored.get(key)
            self._remember(key, _Stored(now, said or (before.said if before else None)))

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

    def _remember(self, key: tuple[TenantId, DeviceId], stored: _Stored) -> None:
        self._stored.pop(key, None)  # the newest is last
        self._stored[key] = stored
        if len(self._stored) > MAX_DEVICES_REMEMBERED:
            del self._stored[next(iter(self._stored))]


class Said(NamedTuple):
    """A version that a device reported about a campaign, and whether it had succeeded in it.

    The same version is a repetition only if all three are the same: a success in between counts as another version.
    """

    version: str
    campaign_id: CampaignId
    succeeded: bool


class _Stored(NamedTuple):
    """When a device was stored, by this process's clock, and the version that it reported last; None: not known."""

    at: float
    said: Said | None = None
