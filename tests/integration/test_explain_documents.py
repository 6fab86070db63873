"""Under random policy documents a claim takes exactly the devices that *explain* allows (G25)."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.words import GateName
from rollwave.engine.explain import explain_device, waiting_devices
from rollwave.engine.timing import steps_of
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.chaos.documents import insert_document
from tests.engine import TENANT, Connection, campaign_ref, connect, insert_campaign, make_claims, subscribed_listener
from tests.integration.test_explain import CHANGE_DEVICE, any_row
from tests.support import eventually

SETTINGS = Settings()
NUMBERS = {GateName.IN_FLIGHT, GateName.BYTES, GateName.PACE}
DEVICES = [f"dev-{number}" for number in range(1, 19)]

CHANGE_CAMPAIGN = """
    UPDATE ota_campaigns
    SET policy_revision = $2, placed_revision = $2,
        wave = $3, segment_turn = $4, pace_opened_at = now() - make_interval(secs => $5),
        pace_used = $6, pace_carried = $7, status = $8, active_at = now(), suspended_for = 0,
        sent = (SELECT count(*) FROM ota_device_status WHERE attempt > 0)
    WHERE id = $1
"""


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


def document(dice: random.Random, now: datetime) -> dict[str, Any]:
    """A document that leaves devices in their waves and segments: those of a zone and a hardware revision."""
    local = {"name": "local", "kind": dice.choice(["allow", "deny"]), "duration": "1h", "time_zone": "device"}
    other = {"name": "other", "kind": "deny", "cron": f"0 {(now.hour + 12) % 24} * * *", "duration": "1h"}
    cron = f"0 {now.hour} * * *" if dice.random() < 0.8 else f"0 {(now.hour + 3) % 24} * * *"
    pace: dict[str, Any] = {}
    if dice.random() < 0.4:
        pace["per_minute"] = dice.choice([6, 30, 120])
    if dice.random() < 0.5:
        pace["max_in_flight"] = dice.choice([5, 10, 15])
    if dice.random() < 0.3:
        pace["bytes"] = {dice.choice(["in_flight", "per_second"]): f"{dice.choice([100, 12000])}B"}
    canary: dict[str, Any] = {"name": "canary", "select": "ring == canary"}
    if dice.random() < 0.4:
        canary["max_in_flight"] = dice.randint(1, 3)
    windows = [{**local, "cron": cron}, other] if dice.random() < 0.7 else [other]
    return {
        "waves": [canary, {"name": "early", "size": "40%"}, {"name": "rest"}],
        "pace": pace,
        "guardrails": [
            {
                "name": "bad",
                "threshold": "99%",
                "scope": "segment",
                "per": ["hardware_revision"],
                "action": "quarantine",
            }
        ],
        "schedule": {"windows": windows},
    }


async def change(host: Connection, dice: random.Random, campaign: int, revision: int) -> None:
    """Put the campaign into a state that it may be in between two claims."""
    await host.executemany(CHANGE_DEVICE, [any_row(dice, device) for device in DEVICES])
    await host.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)"
        " VALUES ($1, $2, $3, $4::text::jsonb)",
        *(TENANT, campaign, revision, json.dumps(document(dice, datetime.now(UTC)))),
    )
    await host.execute(
        "UPDATE ota_campaign_segments SET quarantined_at = CASE WHEN random() < $1 THEN now() END",
        dice.choice([0.0, 0.0, 0.5]),
    )
    await host.execute("DELETE FROM rollwave_brakes")
    if dice.random() < 0.1:
        await host.execute(
            "INSERT INTO rollwave_brakes (tenant_id, kind, name, created_by) VALUES ($1, 'halt', 'halt', 'x')", TENANT
        )
    await host.execute(
        CHANGE_CAMPAIGN,
        *(campaign, revision, dice.randint(0, 2), dice.randint(0, 6), dice.choice([None, 0.1, 3.0, 70.0])),
        *(dice.randint(0, 5), dice.choice([0.0, 0.7]), dice.choice(["RUNNING"] * 12 + ["PAUSED"])),
    )


async def test_a_claim_takes_the_devices_that_explain_allows(pool: Pool, host: Connection) -> None:
    dice = random.Random(11)
    campaign = CampaignId(await insert_campaign(host, DEVICES, policy_revision=1))
    await insert_document(host, TENANT, campaign, document(dice, datetime.now(UTC)))
    ref, upkeep, targeter = campaign_ref(campaign), Upkeep(pool, SETTINGS), Targeter(pool, batch=5)

    async def placed() -> bool:
        await upkeep.look_after(ref)
        await targeter.target(ref)
        return not await host.fetchval("SELECT count(*) FROM ota_device_status WHERE segment = 0")

    taken = 0
    async with subscribed_listener(pool):
        await eventually(placed)
        for revision in range(2, 42):
            await change(host, dice, campaign, revision)
            await Counters(pool, SETTINGS).verify(ref)
            waiting = await waiting_devices(pool, SETTINGS, TENANT, campaign)
            explained = {each: await explain_device(pool, SETTINGS, TENANT, campaign, each) for each in DEVICES}
            batch = await make_claims(pool, SETTINGS, steps=steps_of(SETTINGS.tick_interval)).claim(ref)
            claimed = {each.device_id for each in batch.commands}
            assert claimed == {device for device, found in explained.items() if found.may_go_now}
            pending = [each for each in explained.values() if each.status is ExecutionStatus.PENDING]
            assert waiting.pending == len(pending) == sum(each.devices for each in waiting.waiting)
            closed = [next((check.gate for check in each.checks if not check.open), None) for each in pending]
            counted = Counter(
                {gate: sum(each.devices for each in waiting.waiting if each.verdict.gate is gate) for gate in closed}
            )
            # A limit on a number does not know which devices of several segments are over it.
            assert all(counted[gate] == closed.count(gate) for gate in {*closed} - {None, *NUMBERS}), (closed, waiting)
            assert all(each.may_go_now or any(not check.open for check in each.checks) for each in pending)
            taken += len(claimed)
    assert taken
