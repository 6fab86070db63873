"""Which devices' times of the last report, and versions, are stored with a batch of reports: at most one an hour each."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.reports.parse import Report
from rollwave.store.executions import Effect
from rollwave.store.labels import FRESH_SECONDS, Seen

MAX_DEVICES_REMEMBERED = 100_000
"""Maximum number of devices of which it is remembered when they were stored. Of others, PostgreSQL is asked."""


class SeenDevices:
    """Remembers which devices were stored, so that most batches need no statement for it.

    It uses the process's clock, and only to leave out a repetition.
    """

    def __init__(self) -> None:
        self._stored_at: dict[tuple[TenantId, DeviceId], float] = {}

    def to_store(
        self, tenant_id: TenantId, reported: Iterable[tuple[DeviceId, Report, Effect]]
    ) -> dict[DeviceId, Seen]:
        """What to store of the devices that have ``reported``, by device. An unknown execution says nothing."""
        found: dict[DeviceId, Seen] = {}
        fresh_from = time.monotonic() - FRESH_SECONDS
        for device_id, report, effect in reported:
            if effect.was is None:
                continue
            if effect.became is ExecutionStatus.SUCCESS:
                found[device_id] = Seen(device_id, report.campaign_id)
            elif device_id not in found and self._stored_at.get((tenant_id, device_id), fresh_from) <= fresh_from:
                found[device_id] = Seen(device_id)
        return found

    def stored(self, tenant_id: TenantId, devices: Iterable[DeviceId]) -> None:
        """Note that these devices were stored now."""
        now = time.monotonic()
        for device_id in devices:
            key = tenant_id, device_id
            self._stored_at.pop(key, None)  # the newest is last
            self._stored_at[key] = now
        while len(self._stored_at) > MAX_DEVICES_REMEMBERED:
            del self._stored_at[next(iter(self._stored_at))]
