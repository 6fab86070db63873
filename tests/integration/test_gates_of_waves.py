"""The gates between waves, judged over a real database: claims, reports and looks, without a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from rollwave.domain.role import Role
from rollwave.engine import explain
from rollwave.engine.promote import promote_wave
from rollwave.engine.retry import retry_failed
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import TENANT, Connection, campaign_ref, connect, incoming_report, make_claims
from tests.in_process import ingest, long_subscribed_listener
from tests.integration.test_policy_waves import insert_campaign, status_of, waves_of

SETTINGS = Settings(OTA_TICK_INTERVAL=0.2)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
async def listener(pool: Pool, host: Connection) -> AsyncIterator[None]:
    async with long_subscribed_listener(pool, host):
        yield


async def look(pool: Pool, campaign: int, times: int = 3) -> None:
    for _ in range(times):
        found = await Upkeep(pool, SETTINGS).look_after(campaign_ref(campaign))
        if found.being_targeted:
            await Targeter(pool).target(campaign_ref(campaign))
        if found.unplaced:
            await Targeter(pool).place_inserted(campaign_ref(campaign))


async def send(pool: Pool, campaign: int) -> list[str]:
    """Claim devices, as if the broker had acknowledged their commands."""
    batch = await make_claims(pool, SETTINGS).claim(campaign_ref(campaign))
    if batch.commands:
        async with tenant_transaction(pool, TENANT, generic_plans=True) as connection:
            await executions.mark_sent(connection, TENANT, campaign, batch.commands, batch.times)
    return sorted(each.device_id for each in batch.commands)


async def report(pool: Pool, campaign: int, devices: Sequence[str], status: str) -> None:
    await ingest(pool, [incoming_report(each, campaign, status) for each in devices])


FLEET = {f"dev-{n:02}": {"ring": "canary" if n < 4 else "prod"} for n in range(12)}
CANARY = [{"name": "canary", "size": 4}, {"name": "rest"}]
UNDER_ITS_MINIMUM = {"name": "f", "threshold": "5%", "method": "sequential", "action": "abort"}


async def test_a_guardrail_over_its_threshold_keeps_the_gate_closed_below_its_minimum(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, {"order": "id", "waves": CANARY, "guardrails": [UNDER_ITS_MINIMUM]}, FLEET)
    await look(pool, campaign)
    await report(pool, campaign, await send(pool, campaign), "FAILED")
    await look(pool, campaign)
    assert (await status_of(host, campaign), await waves_of(host, campaign)) == (
        "PAUSED", [("canary", 4, "failed"), ("rest", 8, "waiting")],
    )  # fmt: skip
    because = (
        "guardrail f: 4 of the first 4 devices failed (100.0%); with 99% confidence, at least 20.4% of all would, "
    )
    because += "which is over 5.0%"
    reason = await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", campaign)
    assert reason == f"the gate of wave canary failed: {because}"
    found = await explain.explain_device(pool, SETTINGS, TENANT, campaign, "dev-05")
    assert [each.text for each in found.checks if each.gate == "wave"] == [f"wave canary is not passed: {because}"]
    await promote_wave(pool, SETTINGS, TENANT, campaign, "canary", actor="key", role=Role.OPERATOR)
    assert await waves_of(host, campaign) == [("canary", 4, "passed"), ("rest", 8, "open")]


async def test_on_fail_aborts_for_a_guardrail_over_its_threshold(pool: Pool, host: Connection) -> None:
    waves = [{"name": "canary", "size": 4, "gate": {"min_finished": 2, "on_fail": "abort"}}, {"name": "rest"}]
    campaign = await insert_campaign(
        host, {"order": "id", "waves": waves, "guardrails": [UNDER_ITS_MINIMUM | {"action": "pause"}]}, FLEET
    )
    await look(pool, campaign)
    sent = await send(pool, campaign)
    await report(pool, campaign, sent[:3], "FAILED")
    await look(pool, campaign)
    assert (await status_of(host, campaign), (await waves_of(host, campaign))[0]) == ("RUNNING", ("canary", 4, "open"))
    await report(pool, campaign, sent[3:], "SUCCESS")
    await look(pool, campaign)
    assert await status_of(host, campaign) == "ABORTED"


async def test_a_later_wave_that_earlier_ones_emptied_passes_at_once(pool: Pool, host: Connection) -> None:
    waves = [
        {"name": "canary", "select": "ring == canary"},
        {"name": "early", "select": "ring == canary", "gate": {"soak": "1d", "approval": True}},
        {"name": "rest"},
    ]
    campaign = await insert_campaign(host, {"order": "id", "waves": waves}, FLEET)
    await look(pool, campaign)
    await report(pool, campaign, await send(pool, campaign), "SUCCESS")
    await look(pool, campaign)
    assert await waves_of(host, campaign) == [("canary", 4, "passed"), ("early", 0, "passed"), ("rest", 8, "open")]


async def test_a_last_wave_whose_selector_matches_nothing_is_promoted(pool: Pool, host: Connection) -> None:
    waves = [{"name": "canary", "select": "ring == canary"}, {"name": "rest", "select": "ring == prdo"}]
    campaign = await insert_campaign(host, {"order": "id", "waves": waves}, FLEET)
    await look(pool, campaign)
    await report(pool, campaign, await send(pool, campaign), "SUCCESS")
    await look(pool, campaign)
    assert await status_of(host, campaign) == "PAUSED"
    for _ in range(2):
        status = await promote_wave(pool, SETTINGS, TENANT, campaign, "rest", actor="key", role=Role.OPERATOR)
        assert status == "PAUSED"
    promoted = "SELECT detail ->> 'lacking' FROM ota_campaign_history WHERE event = 'wave_promoted'"
    assert await host.fetchval(promoted) == "the selector of wave rest matches no device"
    await look(pool, campaign)
    assert (await status_of(host, campaign), (await waves_of(host, campaign))[1]) == (
        "COMPLETED",
        ("rest", 0, "passed"),
    )


async def test_a_soak_begins_again_with_a_failure_that_a_retry_balances(pool: Pool, host: Connection) -> None:
    waves = [{"name": "canary", "size": 4, "gate": {"min_finished": 1, "soak": "1d"}}, {"name": "rest"}]
    campaign = await insert_campaign(host, {"order": "id", "waves": waves, "guardrails": []}, FLEET)
    await look(pool, campaign)
    sent = await send(pool, campaign)
    await report(pool, campaign, sent[:1], "SUCCESS")
    await report(pool, campaign, sent[1:2], "FAILED")
    await look(pool, campaign)
    soak = "SELECT soak_from FROM ota_campaign_waves WHERE campaign_id = $1 AND number = 0"
    began = await host.fetchval(soak, campaign)
    await retry_failed(pool, TENANT, campaign, actor="key")
    await look(pool, campaign)
    assert began is not None
    assert await host.fetchval(soak, campaign) == began, "a retry alone does not begin the soak again"
    await report(pool, campaign, sent[2:3], "FAILED")
    await look(pool, campaign)
    began_again = await host.fetchval(soak, campaign)
    assert began_again > began
    await retry_failed(pool, TENANT, campaign, actor="key")
    await report(pool, campaign, sent[3:4], "FAILED")
    await look(pool, campaign)
    assert await host.fetchval(soak, campaign) > began_again, "as many devices have failed as before"
