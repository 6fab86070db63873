"""Workers whose clocks are a day ahead and a day behind. Pace, leases and deadlines use the database's clock only."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rollwave.mqtt.payload import encode_report
from tests.auditor import auditing
from tests.engine import (
    Command,
    Connection,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto, debian_faketime
from tests.support import Running, eventually

LEASE, PROGRESS_TIMEOUT_SECONDS, RATE, TICK = 2.0, 3.0, 5, 0.4
SETTINGS = {
    "ROLLWAVE_LEASE": str(LEASE),
    "OTA_TICK_INTERVAL": str(TICK),
    "OTA_PROGRESS_TIMEOUT": str(PROGRESS_TIMEOUT_SECONDS),
    "OTA_MAX_ATTEMPTS": "2",
}
MUTE = {f"dev-{number}" for number in (3, 20)}
DAY = timedelta(days=1)


@pytest.fixture
def faketime() -> Path:
    found = debian_faketime()
    assert found, "libfaketime is not installed: scripts/system-packages installs it"
    return found


def at(offset: str, library: Path) -> Sequence[str]:
    """The command prefix that starts a process with its clock shifted by this time.

    Its monotonic clock is not shifted.
    """
    return "env", f"LD_PRELOAD={library}", f"FAKETIME={offset}", "FAKETIME_DONT_FAKE_MONOTONIC=1"


def off_by(running: Running) -> timedelta:
    """The shift of the process's clock, read from its log."""
    return datetime.fromisoformat(events(running, "ota_tick_start")[-1]["ts"]) - datetime.now(UTC)


def answer(command: Command) -> Sequence[bytes]:
    if command.device in MUTE:
        return ()
    return [encode_report(command.campaign, "SUCCESS")]


async def test_workers_with_wrong_clocks_change_no_deadline(
    database: str, mosquitto: Mosquitto, faketime: Path, tmp_path: Path
) -> None:
    async with (
        connect(database) as host,
        connect(database) as second,
        auditing(database),
        devices(mosquitto.url, answer) as fleet,
        worker(
            database, mosquitto.url, tmp_path / "ahead", logs="ota_tick_start", within=at("+1d", faketime), **SETTINGS
        ) as ahead,
        worker(
            database, mosquitto.url, tmp_path / "behind", logs="ota_tick_start", within=at("-1d", faketime), **SETTINGS
        ) as behind,
    ):
        assert abs(off_by(ahead) - DAY) < DAY / 24
        assert abs(off_by(behind) + DAY) < DAY / 24
        campaign = await insert_campaign(host, 60, rollout_rate=RATE, abort_threshold=1.0)
        intervals: set[datetime] = set()
        watching = asyncio.create_task(watch(second, intervals))
        try:
            await eventually(lambda: len(fleet.commands) > 25, timeout=30, what="some commands are sent")
            mosquitto.send_signal(
                signal.SIGSTOP
            )  # Each worker now has a batch that it has claimed and that is not acknowledged.
            try:
                leases = await eventually(lambda: claimed(host), what="both have claimed")
            finally:
                mosquitto.send_signal(signal.SIGCONT)
            assert all(each <= timedelta(seconds=LEASE) for each in leases), leases
            ahead.process.kill()  # A batch claimed by the worker is sent again when its lease ends, not a day later.
            await wait_until_ended(host, campaign, timeout=45)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert await campaign_row(host, campaign) == ("COMPLETED", 58, 2)
        assert await breakdown(host, campaign) == {"SUCCESS": 58, "FAILED": 2}
        moments = sorted(intervals)
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert all(gap >= timedelta(seconds=TICK) for gap in gaps), gaps
        rows = await host.fetch(
            "SELECT device_id, attempt, started_at, completed_at, now() - started_at AS age FROM ota_device_status"
        )
        assert all(timedelta(0) <= row["age"] < timedelta(minutes=5) for row in rows)
        silent = {row["device_id"]: row["completed_at"] - row["started_at"] for row in rows if row["attempt"] == 2}
        assert silent.keys() == MUTE, "other devices did not time out"
        assert all(
            timedelta(seconds=PROGRESS_TIMEOUT_SECONDS) <= each < timedelta(seconds=40) for each in silent.values()
        ), silent
        assert behind.process.returncode is None


async def claimed(host: Connection) -> list[timedelta]:
    """The remaining lease time, once more devices are claimed than one worker's batch holds."""
    rows = await host.fetch(
        "SELECT due_at - clock_timestamp() AS lease FROM ota_device_status WHERE status = 'PENDING' AND attempt > 0"
    )
    leases = [row["lease"] for row in rows if row["lease"] > timedelta(0)]
    return leases if len(leases) > RATE else []


async def watch(host: Connection, intervals: set[datetime]) -> None:
    """Record when each interval of the pace began, until cancelled."""
    while True:
        opened = await host.fetchval("SELECT pace_opened_at FROM ota_campaigns WHERE pace_opened_at IS NOT NULL")
        intervals |= {opened} - {None}
        await asyncio.sleep(0.02)
