"""Which devices are stored with their reports: those that have ended, and others once and not with each report."""

from __future__ import annotations

import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import Report
from rollwave.engine.ingest import seen
from rollwave.engine.ingest.seen import SeenDevices
from rollwave.store.executions import Effect

NORTH = TenantId("north")


def report(devices: SeenDevices, status: str, *, device: str = "dev-1", version: str | None = None) -> list[str]:
    """The devices to store after a report that was applied. They count as stored."""
    became = ExecutionStatus(status)
    said = Report(CampaignId(7), became, None, None, None, version=version)
    effect = Effect(ExecutionStatus.PENDING, became, 1, None, False, 60.0)
    found = devices.to_store(NORTH, [(DeviceId(device), said, effect)])
    devices.stored(NORTH, found)
    return list(found)


def test_a_device_in_progress_is_stored_with_its_end() -> None:
    devices = SeenDevices()
    assert report(devices, "DOWNLOADING") == report(devices, "INSTALLING") == []
    assert report(devices, "SUCCESS") == ["dev-1"]


def test_a_version_is_stored_at_once() -> None:
    assert report(SeenDevices(), "DOWNLOADING", version="2.0") == ["dev-1"]


def test_a_device_that_stays_in_progress_is_stored_after_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = SeenDevices()
    assert report(devices, "DOWNLOADING") == []
    monkeypatch.setattr(seen, "DEFERRED_SECONDS", 0.0)
    assert report(devices, "INSTALLING") == ["dev-1"]
    assert report(devices, "INSTALLING") == [], "it was stored less than an hour ago"


def test_a_device_is_stored_at_once_if_too_many_are_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "MAX_DEVICES_REMEMBERED", 1)
    devices = SeenDevices()
    assert report(devices, "DOWNLOADING") == []
    assert report(devices, "DOWNLOADING", device="dev-2") == ["dev-2"]
    monkeypatch.setattr(seen, "FRESH_SECONDS", 0.0)
    assert report(devices, "DOWNLOADING", device="dev-3") == [], "one that was deferred for an hour makes room"
