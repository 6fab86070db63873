"""Which devices are stored with their reports: what the end of a device says is read from its execution."""

from __future__ import annotations

import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.engine.ingest import seen
from rollwave.engine.ingest.seen import Said, SeenDevices
from rollwave.store.executions import Effect

NORTH = TenantId("north")
CAMPAIGN, OTHER = CampaignId(7), CampaignId(8)


def report(
    devices: SeenDevices,
    status: str,
    *,
    device: str = "dev-1",
    version: str | None = None,
    campaign: CampaignId = CAMPAIGN,
    was: str = "PENDING",
    applied: bool = True,
    found: dict[DeviceId, Said | None] | None = None,
) -> list[str]:
    """The devices to store after a report, together with those ``found`` before. They count as stored."""
    became = ExecutionStatus(status)
    said = Report(campaign, became, None, None, None, version=version)
    effect = Effect(ExecutionStatus(was), became if applied else None, 1, None, False, 60.0)
    found = {} if found is None else found
    devices.add(NORTH, [DeviceReport(DeviceId(device), said)], [effect], found)
    devices.stored(NORTH, found)
    return list(found)


def test_nothing_is_stored_of_a_device_that_ends_without_a_version_of_its_own() -> None:
    devices = SeenDevices()
    for status in ("DOWNLOADING", "INSTALLING", "SUCCESS"):
        assert report(devices, status) == []
    assert report(devices, "SUCCESS", was="SUCCESS", applied=False) == [], "a repetition, less than an hour later"


def test_a_repeated_end_is_stored_if_the_execution_does_not_say_when(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = SeenDevices()
    monkeypatch.setattr(seen, "DEFERRED_SECONDS", 0.0)
    assert report(devices, "SUCCESS", was="SUCCESS", applied=False) == []
    assert report(devices, "SUCCESS", was="SUCCESS", applied=False) == ["dev-1"]


def test_a_version_is_stored_at_once_and_its_repetition_is_not() -> None:
    devices = SeenDevices()
    assert report(devices, "DOWNLOADING", version="2.0") == ["dev-1"]
    assert report(devices, "INSTALLING", version="2.0", was="DOWNLOADING") == []
    assert report(devices, "INSTALLING", version="2.1", was="DOWNLOADING") == ["dev-1"]


def test_a_version_is_stored_again_after_a_success() -> None:
    """Between both, the device ran the firmware's version, also if another process heard of that."""
    devices = SeenDevices()
    assert report(devices, "DOWNLOADING", version="1.0") == ["dev-1"]
    assert report(devices, "SUCCESS", was="DOWNLOADING") == []
    assert report(devices, "DOWNLOADING", version="1.0", campaign=OTHER) == ["dev-1"]
    assert report(devices, "DOWNLOADING", version="1.0", campaign=OTHER) == []
    assert report(devices, "SUCCESS", version="1.0", campaign=OTHER, was="SUCCESS", applied=False) == ["dev-1"]
    assert report(devices, "DOWNLOADING", version="1.0") == ["dev-1"]


def test_a_success_counts_before_a_version_that_the_device_said_earlier_in_the_same_batch() -> None:
    devices, found = SeenDevices(), dict[DeviceId, Said | None]()
    assert report(devices, "DOWNLOADING", version="1.0", found=found) == ["dev-1"]
    assert report(devices, "FAILED", was="DOWNLOADING", found=found) == ["dev-1"]
    assert report(devices, "SUCCESS", was="DOWNLOADING", found=found) == []


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
