"""A claim takes exactly the devices that *explain* allows. For every other device, *explain* names a gate (G25)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.waiting import Waiting
from rollwave.domain.policy.words import GateName
from rollwave.engine.explain import Explanation, explain_device, waiting_devices
from rollwave.engine.timing import steps_of
from rollwave.engine.upkeep.counters import Counters
from rollwave.errors import NotFound
from rollwave.settings import Settings
from rollwave.store import campaigns, executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed
from rollwave.store.views import MOST_COUNTED
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_ref,
    claim_commands,
    connect,
    insert_campaign,
    make_claims,
    subscribed_listener,
)

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

SETTINGS = Settings()
DEVICES = [f"dev-{number}" for number in range(1, 16)]


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def counted_campaign(
    pool: Pool, host: Connection, *, rollout_rate: int = 10, max_in_flight: int | None = None
) -> CampaignId:
    """A running campaign over :data:`DEVICES` whose devices are counted, as before a first claim."""
    made = await insert_campaign(host, DEVICES, rollout_rate=rollout_rate, max_in_flight=max_in_flight)
    await Counters(pool, SETTINGS).count(campaign_ref(made))
    return CampaignId(made)


async def claim(pool: Pool, campaign: CampaignId) -> Sequence[Claimed]:
    steps = steps_of(SETTINGS.tick_interval)
    return (await make_claims(pool, SETTINGS, steps=steps).claim(campaign_ref(campaign))).commands


async def reasons(pool: Pool, host: Connection, campaign: CampaignId) -> dict[GateName, int]:
    """The gates that the campaign's devices wait for.

    Checks that each device counts once, and that a claim takes the devices that *explain* names.
    """
    waiting = await waiting_devices(pool, SETTINGS, TENANT, campaign)
    pending = (await breakdown(host, campaign)).get("PENDING", 0)
    explained = {each: await explain_device(pool, SETTINGS, TENANT, campaign, each) for each in DEVICES}
    claimed = {each.device_id for each in await claim(pool, campaign)}
    assert claimed == {device for device, found in explained.items() if found.may_go_now}
    for found in explained.values():
        assert found.may_go_now is all(check.open for check in found.checks)
        assert all(check.text for check in found.checks)
    assert waiting.pending == pending == sum(each.devices for each in waiting.waiting)
    counted = {each.verdict.gate: each.devices for each in waiting.waiting}
    first_closed = (
        next((check.gate for check in found.checks if not check.open), GateName.PACE)
        for found in explained.values()
        if found.status is ExecutionStatus.PENDING
    )
    assert counted == Counter(first_closed)
    may_go_now = [found for found in explained.values() if found.may_go_now and found.status is ExecutionStatus.PENDING]
    assert sum(_may_go_now(each) for each in waiting.waiting) == len(may_go_now)
    for each in waiting.waiting:
        opens = [_opens_in(each.verdict.gate, found, waiting.as_of) for found in explained.values()]
        if each.verdict.until is not None:
            until = (each.verdict.until - waiting.as_of).total_seconds()
            assert until == pytest.approx(min(filter(None, opens)), abs=1.0)
    return counted


def _opens_in(gate: GateName, found: Explanation, now: datetime) -> float | None:
    """Seconds until the gate opens to a PENDING device, where it is the first that is closed to it."""
    first = next((check for check in found.checks if not check.open), None)
    if found.status is not ExecutionStatus.PENDING or first is None or first.gate is not gate or first.until is None:
        return None
    return (first.until - now).total_seconds()


def _may_go_now(waiting: Waiting) -> int:
    number = waiting.verdict.detail.get("may_go_now", 0)
    assert isinstance(number, int)
    assert waiting.verdict.gate is GateName.PACE or not number
    return number


@pytest.mark.parametrize(
    ("changed", "gate"),
    [
        ("UPDATE ota_campaigns SET status = 'CREATED'", GateName.STATUS),
        ("UPDATE ota_campaigns SET status = 'PAUSED'", GateName.STATUS),
        ("UPDATE ota_campaigns SET status = 'ABORTED'", GateName.STATUS),
        ("UPDATE ota_campaigns SET rollout_rate = 0", GateName.STATUS),
        ("UPDATE firmware_versions SET file_url = ''", GateName.STATUS),
        ("UPDATE rollwave_installation SET bound_to = 'elsewhere'", GateName.STATUS),
        ("UPDATE ota_campaigns SET targeted_devices = 3", GateName.TARGETING),
        ("UPDATE ota_campaigns SET sent = 1, wave = 0, rollout_strategy = 'canary'", GateName.WAVE),
        ("UPDATE ota_campaigns SET pace_opened_at = now() + interval '2 s', pace_used = 10", GateName.PACE),
    ],
)
async def test_a_campaign_that_sends_nothing_names_the_gate(
    pool: Pool, host: Connection, changed: str, gate: GateName
) -> None:
    async with subscribed_listener(pool):
        campaign = await counted_campaign(pool, host)
        if gate is GateName.WAVE:
            await host.execute(
                "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, up_to)"
                " VALUES ($1, $2, 0, 1), ($1, $2, 1, NULL)",
                TENANT,
                campaign,
            )
        await host.execute(changed)
        assert await reasons(pool, host, campaign) == {gate: len(DEVICES)}


async def test_without_a_listener_every_device_waits_for_one(pool: Pool, host: Connection) -> None:
    async with subscribed_listener(pool):
        campaign = await counted_campaign(pool, host)
    await host.execute("UPDATE rollwave_listener_slots SET subscribed_at = NULL, alive_at = '-infinity'")
    assert await reasons(pool, host, campaign) == {GateName.LISTENER: len(DEVICES)}


@pytest.mark.usefixtures("listener_subscribed")
async def test_devices_of_an_uncounted_campaign_wait_for_the_count(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, DEVICES)
    waiting = await waiting_devices(pool, SETTINGS, TENANT, campaign)
    assert [(each.verdict.gate, each.devices) for each in waiting.waiting] == [(GateName.TARGETING, len(DEVICES))]


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_cap_and_a_pace_name_the_gate_of_each_device_that_may_not_go(pool: Pool, host: Connection) -> None:
    campaign = await counted_campaign(pool, host, max_in_flight=4, rollout_rate=10)
    assert await reasons(pool, host, campaign) == {GateName.IN_FLIGHT: 11, GateName.PACE: 4}
    assert await reasons(pool, host, campaign) == {GateName.IN_FLIGHT: 11, GateName.LEASE: 4}
    await host.execute("UPDATE ota_device_status SET due_at = now() WHERE device_id IN ('dev-1', 'dev-2')")
    assert await reasons(pool, host, campaign) == {GateName.IN_FLIGHT: 11, GateName.LEASE: 2, GateName.PACE: 2}


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_canary_names_its_wave_and_the_devices_of_each(pool: Pool, host: Connection) -> None:
    campaign = CampaignId(
        await insert_campaign(host, DEVICES, rollout_strategy="canary", canary_percent=20, rollout_rate=10)
    )
    assert len(await claim(pool, campaign)) == 3
    explained = [await explain_device(pool, SETTINGS, TENANT, campaign, each) for each in DEVICES]
    assert [each.wave for each in explained] == ["canary"] * 3 + ["rest"] * 12
    assert await reasons(pool, host, campaign) == {GateName.WAVE: 12, GateName.LEASE: 3}


@pytest.mark.usefixtures("listener_subscribed")
async def test_devices_that_the_broker_refuses_are_named_as_refused(pool: Pool, host: Connection) -> None:
    campaign = await counted_campaign(pool, host, max_in_flight=2)
    taken = await claim(pool, campaign)
    async with tenant_transaction(pool, TENANT) as connection:
        await executions.release(connection, TENANT, campaign, taken[:1], delay=60, refusal=Refusal.CONNECTION_ENDED)
    assert await reasons(pool, host, campaign) == {GateName.IN_FLIGHT: 13, GateName.REFUSED: 1, GateName.LEASE: 1}
    found = await explain_device(pool, SETTINGS, TENANT, campaign, taken[0].device_id)
    refused = found.checks[-1]
    assert (refused.gate, refused.detail["refused_for"]) == (GateName.REFUSED, "connection_ended")
    assert found.may_go_at == refused.until
    assert found.may_go_at is not None


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_between_two_attempts_waits_for_its_delay_and_then_for_its_turn(
    pool: Pool, host: Connection
) -> None:
    campaign = await counted_campaign(pool, host, rollout_rate=1)
    await host.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1, failed_attempt = 1,"
        " failed_reason = 'no_answer', started_at = now(), due_at = now() + interval '1 minute'"
        " WHERE device_id = 'dev-3'"
    )
    await Counters(pool, SETTINGS).verify(campaign_ref(campaign))
    found = await explain_device(pool, SETTINGS, TENANT, campaign, "dev-3")
    assert [check.gate for check in found.checks if not check.open] == [GateName.BACKOFF]
    await host.execute("UPDATE ota_device_status SET due_at = now() - interval '1 s' WHERE device_id = 'dev-3'")
    assert (await explain_device(pool, SETTINGS, TENANT, campaign, "dev-3")).may_go_now
    assert not (await explain_device(pool, SETTINGS, TENANT, campaign, "dev-1")).may_go_now, (
        "one device goes, and dev-3 is first"
    )
    await reasons(pool, host, campaign)


@pytest.mark.parametrize("due_at", ["now()", "NULL"])
@pytest.mark.usefixtures("listener_subscribed")
async def test_devices_due_at_the_same_moment_are_claimed_in_the_order_of_explain(
    pool: Pool, host: Connection, due_at: str
) -> None:
    campaign = await counted_campaign(pool, host, rollout_rate=3)
    for device in DEVICES:
        await host.execute("UPDATE ota_device_status SET attempt = 1 WHERE device_id = $1", device)
    await host.execute(f"UPDATE ota_device_status SET due_at = {due_at}")
    await reasons(pool, host, campaign)


@pytest.mark.usefixtures("listener_subscribed")
async def test_devices_behind_retries_are_not_counted_as_going_now(pool: Pool, host: Connection) -> None:
    campaign = await counted_campaign(pool, host, rollout_rate=3)
    await host.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1, failed_attempt = 1,"
        " failed_reason = 'no_answer', started_at = now(), due_at = now() WHERE device_id IN ('dev-4', 'dev-5')"
    )
    await Counters(pool, SETTINGS).verify(campaign_ref(campaign))
    [waiting] = (await waiting_devices(pool, SETTINGS, TENANT, campaign)).waiting
    assert (waiting.devices, waiting.verdict.detail["may_go_now"]) == (13, 1)
    await reasons(pool, host, campaign)


@pytest.mark.usefixtures("listener_subscribed")
async def test_claimed_devices_behind_too_many_in_progress_are_counted_as_not_looked_at(
    pool: Pool, host: Connection
) -> None:
    campaign = CampaignId(await insert_campaign(host, MOST_COUNTED + 20))
    await host.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1, started_at = now(),"
        " due_at = now() + interval '100 s'"
    )
    await host.execute(
        "UPDATE ota_device_status SET status = 'PENDING', sent_attempt = 0, refused_for = 'rejected',"
        " due_at = now() + interval '500 s' WHERE device_id IN ('dev-1', 'dev-2')"
    )
    await host.execute(
        "UPDATE ota_device_status SET status = 'PENDING', sent_attempt = 0, due_at = now() + interval '20 s'"
        " WHERE device_id = 'dev-3'"
    )
    await host.execute("UPDATE ota_campaigns SET sent = $1", MOST_COUNTED + 20)
    await Counters(pool, SETTINGS).count(campaign_ref(campaign))
    found = await waiting_devices(pool, SETTINGS, TENANT, campaign)
    [waiting] = found.waiting
    assert (found.pending, waiting.devices, waiting.verdict.gate) == (3, 3, GateName.LEASE)
    assert waiting.verdict.detail["not_looked_at"] == 2
    assert waiting.verdict.text == "a worker is sending to it; not looked at: 2 of the claimed devices"
    assert waiting.verdict.until is not None
    assert waiting.verdict.until - found.as_of < timedelta(seconds=21)
    await host.execute("UPDATE ota_device_status SET due_at = now() + interval '500 s' WHERE device_id = 'dev-3'")
    [waiting] = (await waiting_devices(pool, SETTINGS, TENANT, campaign)).waiting
    assert (waiting.devices, waiting.verdict.gate, waiting.verdict.until) == (3, GateName.LEASE, None)
    assert waiting.verdict.text == "not looked at: 3 of the claimed devices"


@pytest.mark.usefixtures("listener_subscribed")
async def test_waiting_names_the_attempt_of_the_device_that_is_due_first(pool: Pool, host: Connection) -> None:
    campaign = await counted_campaign(pool, host)
    await host.execute(
        "UPDATE ota_device_status SET attempt = 3, sent_attempt = 2, due_at = now() + interval '20 s'"
        " WHERE device_id = 'dev-1'"
    )
    await host.execute(
        "UPDATE ota_device_status SET attempt = 2, sent_attempt = 1, due_at = now() + interval '10 s'"
        " WHERE device_id = 'dev-2'"
    )
    waiting = await waiting_devices(pool, SETTINGS, TENANT, campaign)
    assert [each.verdict.detail for each in waiting.waiting if each.verdict.gate is GateName.LEASE] == [{"attempt": 2}]


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_claimed_device_that_cannot_be_addressed_is_not_in_the_queue(pool: Pool, host: Connection) -> None:
    campaign = await counted_campaign(pool, host)
    await host.execute(
        "UPDATE ota_device_status SET device_id = 'a/b', attempt = 1, due_at = now() WHERE device_id = 'dev-1'"
    )
    waiting = await waiting_devices(pool, SETTINGS, TENANT, campaign)
    assert {each.verdict.gate: each.devices for each in waiting.waiting} == {GateName.STATUS: 1, GateName.PACE: 14}


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_that_has_ended_says_how(pool: Pool, host: Connection) -> None:
    campaign = await counted_campaign(pool, host)
    await host.execute(
        "UPDATE ota_device_status SET status = 'FAILED', attempt = 1, sent_attempt = 1, completed_at = now(),"
        " error_message = 'no space left' WHERE device_id = 'dev-1'"
    )
    found = await explain_device(pool, SETTINGS, TENANT, campaign, "dev-1")
    assert (found.status, found.may_go_now, found.may_go_at) == (ExecutionStatus.FAILED, False, None)
    assert [check.text for check in found.checks] == ["it failed: no space left"]


async def test_explaining_an_unknown_campaign_or_device_is_not_found(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, DEVICES)
    with pytest.raises(NotFound, match="no campaign 99"):
        await waiting_devices(pool, SETTINGS, TENANT, 99)
    with pytest.raises(NotFound, match="no campaign"):
        await explain_device(pool, SETTINGS, "south", campaign, "dev-1")
    with pytest.raises(NotFound, match="has no device nobody"):
        await explain_device(pool, SETTINGS, TENANT, campaign, "nobody")


def any_row(dice: random.Random, device: str) -> tuple[object, ...]:
    """A device's row, in any state that a worker or a host may leave it in."""
    if dice.random() < 0.4:
        return (device, "PENDING", 0, 0, 0, None, None, False, None)
    attempt = dice.randint(1, 2)
    return (
        device,
        dice.choice(["PENDING", "PENDING", "DOWNLOADING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"]),
        attempt,
        dice.choice([attempt, attempt, attempt - 1]),
        dice.choice([attempt, attempt, attempt - 1]),
        dice.choice([None, -300.0, -20.0, -1.0, 60.0, 300.0]),
        dice.choice([None, 10.0, 1e9]),
        dice.random() < 0.3,
        dice.choice([None, None, None, None, *Refusal]),
    )


CHANGE_DEVICE = """
    UPDATE ota_device_status
    SET status = $2, attempt = $3, sent_attempt = $4, failed_attempt = $5, refused_for = $9,
        due_at = now() + make_interval(secs => $6), started_at = now() - make_interval(secs => $7),
        completed_at = CASE WHEN $8 THEN now() END
    WHERE device_id = $1
"""
CHANGE_CAMPAIGN = """
    UPDATE ota_campaigns
    SET rollout_rate = $1, max_in_flight = $2, pace_opened_at = now() - make_interval(secs => $3), pace_used = $4,
        rollout_strategy = $5, wave = $6, device_timeout = $7, suspended_for = $8, active_at = now(),
        targeted_devices = $9
"""


async def change_campaign(host: Connection, dice: random.Random) -> None:
    """Put the campaign into a state that it may be in between two claims, and a listener there or not."""
    canary = dice.random() < 0.5
    await host.execute(
        CHANGE_CAMPAIGN,
        dice.choice([1, 2, 3, 5, 8, 20, 120, 300]),
        dice.choice([None, None, 3, 8, 20]),
        dice.choice([None, None, 0.1, 3.0, 8.0, 11.0, -3.0, -12.0]),
        dice.randint(0, 25),
        "canary" if canary else "linear",
        int(canary and dice.random() < 0.3),
        dice.choice([None, 100]),
        dice.choice([0.0, 0.0, 50.0]),
        dice.choice([None] * 20 + [3]),
    )
    await host.execute(
        "UPDATE ota_campaign_waves SET up_to = $1 WHERE number = 0", dice.randint(1, len(DEVICES)) if canary else None
    )
    if dice.random() < 0.7:
        await host.execute("UPDATE ota_campaigns SET sent = (SELECT count(*) FROM ota_device_status WHERE attempt > 0)")
    await host.execute(
        "UPDATE rollwave_listener_slots SET subscribed_at = CASE WHEN $1 THEN now() END,"
        " alive_at = CASE WHEN $1 THEN now() ELSE '-infinity' END",
        dice.random() < 0.95,
    )
    await host.execute("UPDATE ota_campaigns SET status = $1", dice.choice(["RUNNING"] * 15 + ["PAUSED", "ABORTED"]))


@pytest.mark.parametrize("seed", range(8))
async def test_explain_waiting_and_a_claim_agree_about_devices_and_campaigns_in_any_state(
    pool: Pool, host: Connection, seed: int
) -> None:
    dice = random.Random(seed)
    async with subscribed_listener(pool):  # leaves the slot's row, which has no beat any more
        campaign = await counted_campaign(pool, host)
    await host.execute(
        "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, up_to)"
        " VALUES ($1, $2, 0, 1), ($1, $2, 1, NULL)",
        TENANT,
        campaign,
    )
    for _ in range(10):
        await host.execute("UPDATE ota_campaigns SET status = 'RUNNING', abort_threshold = 1")
        await host.executemany(CHANGE_DEVICE, [any_row(dice, device) for device in DEVICES])
        await Counters(pool, SETTINGS).verify(campaign_ref(campaign))
        await change_campaign(host, dice)
        await reasons(pool, host, campaign)


@pytest.mark.usefixtures("listener_subscribed")
async def test_the_last_device_of_the_queue_is_explained_with_the_number_before_it(
    pool: Pool, host: Connection
) -> None:
    campaign = await counted_campaign(pool, host, rollout_rate=5)
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        await claim_commands(connection, await campaigns.lock(connection, TENANT, campaign), tokens=2, fresh=2)
    found = await explain_device(pool, SETTINGS, TENANT, campaign, DEVICES[-1])
    assert [check.detail.get("ahead") for check in found.checks if not check.open] == [12]


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_far_back_in_the_queue_may_go_after_those_before_it(pool: Pool, host: Connection) -> None:
    campaign = CampaignId(await insert_campaign(host, 500, rollout_rate=10))
    assert len(await claim(pool, campaign)) == 10
    found = await explain_device(pool, SETTINGS, TENANT, campaign, "dev-500")
    waits = (found.may_go_at or datetime.max.replace(tzinfo=UTC)) - datetime.now(UTC)
    assert timedelta(seconds=470) < waits < timedelta(seconds=490)


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_host_that_sends_a_whole_tick_at_once_claims_within_the_interval_that_explain_gives(
    pool: Pool, host: Connection
) -> None:
    campaign = CampaignId(await insert_campaign(host, 120, rollout_rate=1000))
    await Counters(pool, SETTINGS).count(campaign_ref(campaign))
    waiting = await waiting_devices(pool, SETTINGS, TENANT, campaign)
    assert [each.verdict.detail["may_go_now"] for each in waiting.waiting] == [50], "a step of a worker's"
    last = await explain_device(pool, SETTINGS, TENANT, campaign, "dev-120")
    assert [check.gate for check in last.checks if not check.open] == [GateName.PACE]
    assert last.may_go_at is not None
    assert last.may_go_at - waiting.as_of < timedelta(seconds=SETTINGS.tick_interval)
    claims = make_claims(pool, SETTINGS, steps=1)
    assert len((await claims.claim(campaign_ref(campaign))).commands) == 120


@pytest.mark.usefixtures("listener_subscribed")
async def test_devices_past_their_deadline_that_no_claim_takes_are_not_ahead(pool: Pool, host: Connection) -> None:
    """As after a long pause: their deadlines are extended, so they are in progress, and nothing is due for them."""
    campaign = CampaignId(await insert_campaign(host, MOST_COUNTED + 5))
    await host.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1,"
        " started_at = now() - interval '1 hour', due_at = now() - interval '1 s' WHERE id > 5"
    )
    await host.execute("UPDATE ota_campaigns SET sent = $1", MOST_COUNTED)
    await Counters(pool, SETTINGS).count(campaign_ref(campaign))
    found = await explain_device(pool, SETTINGS, TENANT, campaign, "dev-1")
    assert found.may_go_now
    assert "dev-1" in [each.device_id for each in await claim(pool, campaign)]


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_too_far_back_in_the_queue_to_be_counted_has_no_known_time(pool: Pool, host: Connection) -> None:
    campaign = CampaignId(await insert_campaign(host, MOST_COUNTED + 2, rollout_rate=10 * MOST_COUNTED))
    await Counters(pool, SETTINGS).count(campaign_ref(campaign))
    counted = await explain_device(pool, SETTINGS, TENANT, campaign, f"dev-{MOST_COUNTED}")
    beyond = await explain_device(pool, SETTINGS, TENANT, campaign, f"dev-{MOST_COUNTED + 2}")
    assert counted.may_go_at is not None
    assert [(check.gate, check.until) for check in beyond.checks if not check.open] == [(GateName.PACE, None)]
    assert "10,000 or more devices go before it" in beyond.checks[-1].text
