"""History alone gives the state of each campaign and the cause of each failure, even when workers are killed."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.events import AttemptFailed, CampaignMoved, DeviceFailure, DeviceRetried, Unknown, read
from rollwave.domain.retry import SILENCE, Reason
from rollwave.engine.operations import abort_campaign, pause_campaign, start_campaign
from rollwave.engine.retry import retry_failed
from rollwave.errors import Conflict
from rollwave.mqtt.payload import encode_report
from rollwave.store.database import Pool
from tests.engine import TENANT, Command, Connection, connect, devices, events, insert_campaign, worker
from tests.servers import Mosquitto
from tests.support import eventually

SETTINGS = {"ROLLWAVE_LEASE": "1", "OTA_TICK_INTERVAL": "0.1", "OTA_PROGRESS_TIMEOUT": "0.8"}
DEVICES, CAMPAIGNS, SEED = 30, 5, 17

Attempts = dict[tuple[str, int], Reason | None]
"""The cause of each failed attempt, by device and attempt number."""


async def replayed(host: Connection, campaign: int) -> tuple[CampaignStatus, dict[str, Any], Attempts]:
    """The campaign's status, each failed device's last attempt and cause, and all failed attempts.

    Computed from history alone.
    """
    status, attempts, failed = CampaignStatus.RUNNING, Attempts(), dict[str, Any]()
    rows = await host.fetch("SELECT * FROM ota_campaign_history WHERE campaign_id = $1 ORDER BY id", campaign)
    for row in rows:
        event = read(row["event"], json.loads(row["detail"]), row["device_id"])
        assert not isinstance(event, Unknown)
        if isinstance(event, AttemptFailed):
            before = attempts.get((event.device_id, event.attempt))
            assert before is None or before in SILENCE, f"{event.device_id}: twice for one attempt"
            attempts[event.device_id, event.attempt] = event.cause
        if isinstance(event, DeviceFailure):
            assert (event.device_id, event.attempt) in attempts
            assert event.device_id not in failed, f"{event.device_id} failed for good before"
            if event.final:
                failed[event.device_id] = event.attempt, event.cause
        elif isinstance(event, DeviceRetried):
            assert failed.pop(event.device_id)[0] == event.attempt, f"{event.device_id}: retried, and had not failed"
        elif isinstance(event, CampaignMoved):
            assert event.was is status, f"{row['event']} from {event.was}, it was {status}"
            status = event.to
    return status, failed, attempts


async def check(host: Connection, campaign: int) -> str:
    """Compare history with the tables. Returns the campaign's status."""
    status, failed, attempts = await replayed(host, campaign)
    rows = await host.fetch("SELECT * FROM ota_device_status WHERE campaign_id = $1", campaign)
    assert status == await host.fetchval("SELECT status FROM ota_campaigns WHERE id = $1", campaign)
    assert failed == {
        row["device_id"]: (row["attempt"], row["failed_reason"]) for row in rows if row["status"] == "FAILED"
    }
    for row in rows:
        if row["status"] == "FAILED":
            continue
        # If a device succeeded in the end, every attempt before its last has failed.
        failed_causes = {number: cause for (device, number), cause in attempts.items() if device == row["device_id"]}
        assert failed_causes.pop(row["attempt"], Reason.NO_ANSWER) in SILENCE, (
            "the attempt that succeeded had at most timed out"
        )
        assert failed_causes.keys() == set(range(1, row["attempt"]))
    return status


def unpredictable_answers(dice: random.Random) -> Any:
    """Devices that fail at once, late or never, or that do not answer."""

    def answer(command: Command) -> Sequence[bytes]:
        words = dice.choice([[], ["FAILED"], ["DOWNLOADING"], ["DOWNLOADING", "FAILED"], *[["SUCCESS"]] * 4])
        return [encode_report(command.campaign, word, attempt=command.attempt) for word in words]

    return answer


async def operate_at_random(pool: Pool, host: Connection, campaigns: Sequence[int], dice: random.Random) -> None:
    """Start, pause and retry campaigns at random. Now and then, make a rule unreadable for a moment."""
    actions: list[Callable[..., Awaitable[object]]] = [start_campaign, pause_campaign, retry_failed]
    never_retries = campaigns[2]  # While a rule is unreadable, the campaign's own delay between attempts is not used.
    for _ in range(40):
        with suppress(Conflict):
            campaign = dice.choice(campaigns)
            await dice.choice(actions)(pool, TENANT, campaign, actor="operator")
        if dice.random() < 0.1:
            await host.execute("UPDATE ota_campaigns SET max_in_flight = 0 WHERE id = $1", never_retries)
        await asyncio.sleep(dice.uniform(0, 0.1))
        await host.execute("UPDATE ota_campaigns SET max_in_flight = NULL WHERE id = $1", never_retries)


async def any_waits_for_its_next_attempt(host: Connection, campaign: int) -> bool:
    sql = "SELECT FROM ota_device_status WHERE campaign_id = $1 AND failed_reason IS NOT NULL AND completed_at IS NULL"
    return bool(await host.fetchval(f"SELECT EXISTS ({sql})", campaign))


async def test_replaying_history_gives_the_state_of_every_campaign_and_device(
    database: str, pool: Pool, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    dice = random.Random(SEED)  # Not shared with the devices: they answer when they are asked.
    async with (
        connect(database) as host,
        devices(mosquitto.url, unpredictable_answers(random.Random(SEED))),
        AsyncExitStack() as workers,
    ):
        rules: dict[str, Any] = {"rollout_rate": 3, "max_attempts": 3, "abort_min_completed": 10}
        campaigns = [
            await insert_campaign(
                host, DEVICES, abort_threshold=threshold, retry_on=retry_on, retry_delay=delay, **rules
            )
            for threshold, retry_on, delay in [
                (1.0, ["reported", "no_answer", "no_progress"], 0.3),
                (1.0, ["rejected", "reported", "no_answer"], 0.3),
                (1.0, [], 0.3),
                (0.1, ["reported"], 0.3),
                # It runs until an operator aborts it: devices that have failed wait for their next attempt.
                (1.0, ["reported", "rejected", "no_answer", "no_progress"], 600.0),
            ]
        ]
        for name in ("first", "second"):
            hiring = worker(database, mosquitto.url, tmp_path / name, logs="ota_tick_start", **SETTINGS)
            victim = await workers.enter_async_context(hiring)
            await operate_at_random(pool, host, campaigns, dice)
            victim.process.kill()
            await victim.process.wait()
        hiring = worker(database, mosquitto.url, tmp_path / "last", logs="ota_tick_start", **SETTINGS)
        last = await workers.enter_async_context(hiring)
        await start_campaign(pool, TENANT, campaigns[-1], actor="operator")
        await eventually(lambda: any_waits_for_its_next_attempt(host, campaigns[-1]), what="an attempt has failed")
        await abort_campaign(pool, TENANT, campaigns[-1], actor="operator")
        # Such a device is given up when its delay ends.
        await host.execute(
            "UPDATE ota_device_status SET due_at = now() WHERE campaign_id = $1 AND failed_reason IS NOT NULL"
            " AND completed_at IS NULL",
            campaigns[-1],
        )
        for campaign in campaigns[:-1]:
            with suppress(Conflict):
                await start_campaign(pool, TENANT, campaign, actor="operator")

        async def settled() -> bool:
            left = "SELECT count(*) FROM ota_device_status WHERE completed_at IS NULL"
            return bool(
                await host.fetchval(f"SELECT ({left}) = 0 AND bool_and(completed_at IS NOT NULL) FROM ota_campaigns")
            )

        await eventually(settled, timeout=60, what="every campaign has ended")
        assert {await check(host, campaign) for campaign in campaigns} == {"COMPLETED", "ABORTED"}
        happened = {row["event"] for row in await host.fetch("SELECT DISTINCT event FROM ota_campaign_history")}
        assert happened >= {"attempt_failed", "given_up", "running", "paused", "aborted", "completed"}
        assert not events(last, "ota_campaign_error")
