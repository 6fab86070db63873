"""Budgets of a policy document: at most so many devices in flight with the same value of a label."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.words import GateName
from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import explain, policies
from rollwave.engine.policies import Edit
from rollwave.engine.retry import retry_failed
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import Connection, campaign_ref, connect, incoming_report, make_claims
from tests.in_process import ingest
from tests.integration.test_policy_waves import insert_campaign, running, status_of
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, broker: EmbeddedBroker) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")


class Devices:
    """Devices that report only when a test says so. ``working``: those that have a command and have not reported."""

    def __init__(self, session: Session, campaign: int) -> None:
        self._session = session
        self._campaign = campaign
        self.received: list[str] = []
        self.working: list[str] = []
        self.together: list[frozenset[str]] = []

    async def listen(self) -> None:
        await self._session.subscribe("tenant/+/device/+/ota")
        async for message in self._session.messages():
            device = message.topic.split("/")[3]
            self.received.append(device)
            self.working.append(device)
            self.together.append(frozenset(self.working))

    async def report(self, device: str, status: str = "SUCCESS") -> None:
        self.working.remove(device)
        receipt = await self._session.publish(status_topic("north", device), encode_report(self._campaign, status))
        await receipt.acknowledged()


@asynccontextmanager
async def told_devices(broker: EmbeddedBroker, campaign: int) -> AsyncIterator[Devices]:
    async with Session.connect(Broker.from_url(broker.url)) as session:
        found = Devices(session, campaign)
        task = asyncio.create_task(found.listen())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


IN_FLIGHT = "(status IN ('DOWNLOADING', 'INSTALLING') OR status = 'PENDING' AND attempt > 0)"


async def in_flight(host: Connection, campaign: int) -> set[str]:
    rows = await host.fetch(f"SELECT device_id FROM ota_device_status WHERE campaign_id = $1 AND {IN_FLIGHT}", campaign)
    return {row["device_id"] for row in rows}


async def require_right_numbers(host: Connection, campaign: int) -> None:
    """What budgets and cells count agrees with the rows."""
    counted = await host.fetch(
        "SELECT budget, value, in_flight FROM ota_campaign_budget_values"
        " WHERE campaign_id = $1 AND in_flight <> 0 ORDER BY 1, 2",
        campaign,
    )
    rows = await host.fetch(
        "SELECT budget, value, count(*) AS in_flight FROM ota_device_status"
        " CROSS JOIN LATERAL unnest(budget_values) WITH ORDINALITY AS b (value, budget)"
        f" WHERE campaign_id = $1 AND value IS NOT NULL AND {IN_FLIGHT} GROUP BY 1, 2 ORDER BY 1, 2",
        campaign,
    )
    assert [tuple(row) for row in counted] == [tuple(row) for row in rows]
    held = await host.fetch(
        "SELECT device_id FROM ota_campaign_budget_held WHERE campaign_id = $1 ORDER BY device_id", campaign
    )
    marked = await host.fetch(
        "SELECT device_id FROM ota_device_status"
        " WHERE campaign_id = $1 AND segment < 0 AND status = 'PENDING' AND attempt = 0 ORDER BY device_id",
        campaign,
    )
    assert [row["device_id"] for row in held] == [row["device_id"] for row in marked]
    of_cells = await host.fetchval("SELECT sum(held) FROM ota_campaign_cells WHERE campaign_id = $1", campaign)
    assert of_cells == len(held)


ONE_PER_SITE = {"name": "one-per-site", "per": "site", "max_in_flight": 1}


async def test_one_device_of_each_site_at_a_time(host: Connection, pool: Pool, broker: EmbeddedBroker) -> None:
    sites: Mapping[str, str | None] = {f"dev-{n}": f"s{n % 2}" for n in range(8)} | {"free-1": None, "free-2": None}
    fleet = {device: {"site": site} if site else {} for device, site in sites.items()}
    campaign = await insert_campaign(host, {"budgets": [ONE_PER_SITE], "order": "id", "guardrails": []}, fleet)
    async with running(pool), told_devices(broker, campaign) as devices:
        await eventually(lambda: set(devices.working) == {"dev-0", "dev-1", "free-1", "free-2"}, what="the first ones")
        await eventually(lambda: _held(host, campaign, 6), what="six devices are held")
        assert await in_flight(host, campaign) == set(devices.working), "devices without the label have no limit"
        await require_right_numbers(host, campaign)
        await eventually(lambda: _waits(pool, campaign, {"budget": 6}), what="six devices wait for the budget")
        device = await explain.explain_device(pool, Settings(), "north", campaign, "dev-2")
        [check] = [each for each in device.checks if not each.open]
        assert check.detail == {
            "budget": "one-per-site",
            "label": "site",
            "value": "s0",
            "in_flight": 1,
            "max_in_flight": 1,
        }
        await devices.report("free-1")
        for number in range(2, 8):
            await devices.report(f"dev-{number - 2}", "SUCCESS" if number % 3 else "FAILED")
            await eventually(lambda: f"dev-{number}" in devices.received, what=f"dev-{number} is next")  # noqa: B023
            await require_right_numbers(host, campaign)
        for device_id in list(devices.working):
            await devices.report(device_id)
        await eventually(lambda: _is_over(host, campaign), what="the end")
    most = [
        max(Counter(sites[each] for each in group if sites[each]).values(), default=0) for group in devices.together
    ]
    assert max(most) == 1, "never two of one site"
    assert devices.received.index("dev-2") < devices.received.index("dev-6"), "the order of the queue holds"
    await require_right_numbers(host, campaign)


async def _waits(pool: Pool, campaign: int, expected: Mapping[str, int]) -> bool:
    found = await explain.waiting_devices(pool, Settings(), "north", campaign)
    return {each.verdict.gate: each.devices for each in found.waiting} == expected


async def _held(host: Connection, campaign: int, number: int) -> bool:
    held = await host.fetchval("SELECT count(*) FROM ota_campaign_budget_held WHERE campaign_id = $1", campaign)
    return bool(held == number)


async def _is_over(host: Connection, campaign: int) -> bool:
    return await status_of(host, campaign) in {"COMPLETED", "ABORTED"}


class Placed:
    """A campaign whose devices are placed, and that a test claims and reports for."""

    def __init__(
        self, pool: Pool, host: Connection, campaign: int, *, claim_batch: int = 100, place_batch: int = 100
    ) -> None:
        self._pool, self._host, self.id = pool, host, campaign
        self._place_batch = place_batch
        self._settings = Settings(ROLLWAVE_CLAIM_BATCH=claim_batch)

    @classmethod
    async def start(
        cls,
        pool: Pool,
        host: Connection,
        document: Mapping[str, object],
        fleet: Mapping[str, Mapping[str, object]],
        *,
        claim_batch: int = 100,
        place_batch: int = 100,
    ) -> Placed:
        campaign = await insert_campaign(host, {"order": "id", "guardrails": [], **document}, fleet)
        placed = cls(pool, host, campaign, claim_batch=claim_batch, place_batch=place_batch)
        await placed.place()
        return placed

    async def place(self) -> None:
        ref = campaign_ref(self.id)
        await Upkeep(self._pool, self._settings).look_after(ref)
        placing = "SELECT targeted_devices IS NOT NULL FROM ota_campaigns WHERE id = $1"
        while await self._host.fetchval(placing, self.id):
            await Targeter(self._pool, batch=self._place_batch).target(ref)
        await Upkeep(self._pool, self._settings).look_after(ref)

    async def claim(self) -> list[str]:
        """Claim until a claim has nothing more to do."""
        claims = make_claims(self._pool, self._settings)
        claimed: list[str] = []
        while True:
            batch = await claims.claim(campaign_ref(self.id))
            claimed += [each.device_id for each in batch.commands]
            if batch.retry_in:
                return claimed

    async def report(self, *devices: str, status: str = "SUCCESS") -> None:
        await ingest(self._pool, [incoming_report(each, self.id, status) for each in devices])

    async def edit(self, document: Mapping[str, object]) -> None:
        text = json.dumps({"version": 1, "order": "id", "guardrails": [], **document}).encode()
        edit = Edit(text, Format.JSON)
        await policies.edit_policy(
            self._pool, self._settings, "north", self.id, edit, actor="key-1", role=Role.OPERATOR
        )
        await self.place()

    async def compare(self) -> None:
        await Counters(self._pool, self._settings).verify(campaign_ref(self.id))

    async def require_all_go_that_may(self, caps: Sequence[int]) -> None:
        """Each device that was never sent to, and that its segment and wave allow, has a value without room."""
        flying: Counter[tuple[int, str]] = Counter()
        for row in await self._host.fetch(
            f"SELECT budget_values FROM ota_device_status WHERE campaign_id = $1 AND {IN_FLIGHT}", self.id
        ):
            flying.update((number, value) for number, value in enumerate(row["budget_values"]) if value is not None)
        assert all(number <= caps[budget] for (budget, _), number in flying.items()), flying
        waiting = await self._host.fetch(
            "SELECT device_id, budget_values FROM ota_device_status d"
            " JOIN ota_campaigns c ON c.id = d.campaign_id"
            " JOIN ota_campaign_segments s ON s.campaign_id = c.id AND s.number = abs(d.segment)"
            " WHERE c.id = $1 AND d.status = 'PENDING' AND d.attempt = 0 AND s.quarantined_at IS NULL"
            " AND (d.position >> 44) - 1 <= c.wave",
            self.id,
        )
        for row in waiting:
            values = [each for each in enumerate(row["budget_values"]) if each[1] is not None]
            assert any(flying[each] >= caps[each[0]] for each in values), f"{row} could go: {flying}"


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.usefixtures("listener_subscribed")
async def test_only_the_first_devices_of_each_value_and_segment_are_in_the_queue_from_the_start(
    pool: Pool, host: Connection, batch: int
) -> None:
    fleet: dict[str, dict[str, object]] = {
        f"dev-{n:02}": {"site": f"s{n % 3}", "line": f"l{n % 2}", "hw": f"r{n % 2}"} for n in range(14)
    }
    fleet["dev-12"], fleet["dev-13"] = {"line": "l0", "hw": "r0"}, {"hw": "r0"}
    by_site = {"per": "site", "max_in_flight": 1}, {"per": "line", "max_in_flight": 1}
    document = {"budgets": by_site, "guardrails": BY_HARDWARE}
    placed = await Placed.start(pool, host, document, fleet, place_batch=batch)
    first = {f"dev-{n:02}" for n in range(6)}
    assert await queued(host, placed.id) == {*first, "dev-12", "dev-13"}, "one of each site and segment"
    await require_right_numbers(host, placed.id)
    flying = set(await placed.claim())
    assert flying == {"dev-00", "dev-01", "dev-13"}, "one of each line"
    await placed.require_all_go_that_may([1, 1])
    await require_right_numbers(host, placed.id)
    by_line = {"per": "line", "max_in_flight": 2}, {"per": "site", "max_in_flight": 5000}
    await placed.edit({"budgets": by_line, "guardrails": BY_HARDWARE})
    assert await queued(host, placed.id) == {f"dev-{n:02}" for n in range(2, 6)}, "a large maximum holds nobody yet"
    await require_right_numbers(host, placed.id)
    assert await placed.claim() == ["dev-02", "dev-03"]
    await placed.require_all_go_that_may([2, 5000])


async def queued(host: Connection, campaign: int) -> set[str]:
    rows = await host.fetch(
        "SELECT device_id FROM ota_device_status"
        " WHERE campaign_id = $1 AND status = 'PENDING' AND attempt = 0 AND segment > 0",
        campaign,
    )
    return {row["device_id"] for row in rows}


QUARANTINE = "UPDATE ota_campaign_segments SET quarantined_at = CASE WHEN $2 THEN now() END WHERE labels->>'hw' = $1"
BY_HARDWARE = [{"scope": "segment", "per": ["hw"], "action": "quarantine", "threshold": "99%", "min_finished": 1000}]


@pytest.mark.usefixtures("listener_subscribed")
async def test_of_two_devices_of_a_site_in_the_queue_only_the_one_that_the_next_claim_takes_may_go_now(
    pool: Pool, host: Connection
) -> None:
    fleet = {"dev-0": {"site": "a", "hw": "r1"}, "dev-1": {"site": "a", "hw": "r2"}, "dev-2": {"site": "b", "hw": "r2"}}
    placed = await Placed.start(pool, host, {"budgets": [ONE_PER_SITE], "guardrails": BY_HARDWARE}, fleet)
    assert await queued(host, placed.id) == set(fleet), "the first of each segment"
    found = {each: await explain.explain_device(pool, Settings(), "north", placed.id, each) for each in fleet}
    ready = [each for each, explanation in found.items() if explanation.may_go_now]
    [closed] = [each for each in found["dev-1"].checks if not each.open]
    assert closed.gate is GateName.BUDGET
    assert closed.text.endswith("other devices with site a go before it"), closed.text
    assert ready == ["dev-0", "dev-2"]
    assert await placed.claim() == ready


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_that_waits_for_its_segment_takes_no_place_of_its_site(pool: Pool, host: Connection) -> None:
    fleet = {f"dev-{n}": {"site": "a", "hw": "r1" if n < 3 else "r2"} for n in range(6)}
    placed = await Placed.start(pool, host, {"budgets": [ONE_PER_SITE], "guardrails": BY_HARDWARE}, fleet)
    assert await placed.claim() == ["dev-0"]
    await host.execute(QUARANTINE, "r1", True)
    await placed.report("dev-0")
    assert await placed.claim() == ["dev-3"], "of the other segment"
    await host.execute(QUARANTINE, "r1", False)
    assert await placed.claim() == []
    await require_right_numbers(host, placed.id)
    await placed.report("dev-3", status="FAILED")
    assert await placed.claim() in (["dev-1"], ["dev-4"])
    await placed.require_all_go_that_may([1])


@pytest.mark.usefixtures("listener_subscribed")
async def test_an_edit_of_budgets_places_the_devices_anew_and_counts_those_in_flight(
    pool: Pool, host: Connection
) -> None:
    fleet = {f"dev-{n}": {"site": "a", "line": f"l{n % 2}"} for n in range(6)}
    placed = await Placed.start(pool, host, {"budgets": [ONE_PER_SITE]}, fleet)
    assert await placed.claim() == ["dev-0"]
    await placed.edit({"budgets": [{"per": "line", "max_in_flight": 1}]})
    await require_right_numbers(host, placed.id)
    assert await placed.claim() == ["dev-1"], "dev-0 counts for its line"
    await placed.require_all_go_that_may([1])
    await placed.edit({"budgets": [{"per": "line", "max_in_flight": 2}]})
    assert await placed.claim() == ["dev-2", "dev-3"], "a larger maximum lets devices go that were held"
    await placed.edit({})
    assert await placed.claim() == ["dev-4", "dev-5"]
    await placed.report(*fleet)
    await require_right_numbers(host, placed.id)


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_retry_may_exceed_a_budget_which_limits_first_commands_only(pool: Pool, host: Connection) -> None:
    placed = await Placed.start(pool, host, {"budgets": [ONE_PER_SITE]}, {f"dev-{n}": {"site": "a"} for n in range(4)})
    assert await placed.claim() == ["dev-0"]
    await placed.report("dev-0", status="FAILED")
    assert await placed.claim() == ["dev-1"]
    assert (await retry_failed(pool, "north", placed.id, actor="key-1")).devices == 1
    assert await placed.claim() == ["dev-0"]
    await require_right_numbers(host, placed.id)
    await placed.report("dev-1")
    assert await placed.claim() == [], "dev-0 is in flight again"
    await placed.report("dev-0")
    assert await placed.claim() == ["dev-2"]


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_that_is_locked_when_its_turn_comes_goes_with_the_next_claim(
    pool: Pool, host: Connection, database: str
) -> None:
    placed = await Placed.start(pool, host, {"budgets": [ONE_PER_SITE]}, {f"dev-{n}": {"site": "a"} for n in range(2)})
    assert await placed.claim() == ["dev-0"]
    async with connect(database) as other, other.transaction():
        await other.execute("SELECT FROM ota_device_status WHERE device_id = 'dev-1' FOR UPDATE")
        await placed.report("dev-0")
        assert await placed.claim() == []
    assert await placed.claim() == ["dev-1"]
    await require_right_numbers(host, placed.id)


@pytest.mark.usefixtures("listener_subscribed")
async def test_what_a_hosts_sql_changed_is_repaired(pool: Pool, host: Connection) -> None:
    placed = await Placed.start(pool, host, {"budgets": [ONE_PER_SITE]}, {f"dev-{n}": {"site": "a"} for n in range(5)})
    assert await placed.claim() == ["dev-0"]
    skip = "UPDATE ota_device_status SET status = 'SKIPPED', completed_at = now() WHERE device_id = ANY ($1)"
    await host.execute(skip, ["dev-0", "dev-1"])
    assert await placed.claim() == [], "nobody has counted that yet"
    await placed.compare()
    assert await placed.claim() == ["dev-2"], "dev-1 is not sent to"
    await placed.compare()
    await require_right_numbers(host, placed.id)
    await host.execute("UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL WHERE device_id = 'dev-1'")
    await placed.report("dev-2")
    await placed.compare()
    assert await placed.claim() == ["dev-1"], "it was marked as held, and no budget held it"
    await placed.compare()
    await require_right_numbers(host, placed.id)


@pytest.mark.usefixtures("listener_subscribed")
@pytest.mark.parametrize("seed", range(4))
async def test_no_budget_is_exceeded_and_no_device_waits_that_could_go(pool: Pool, host: Connection, seed: int) -> None:
    dice = random.Random(seed)
    caps = [dice.randint(1, 2), dice.randint(1, 3)]
    fleet = {
        f"dev-{n:02}": {key: dice.choice(of) for key, of in {"site": "abcd", "line": "xyz", "hw": "12"}.items()}
        for n in range(40)
    }
    for device in dice.sample(sorted(fleet), 6):
        del fleet[device][dice.choice(["site", "line"])]
    document = {
        "budgets": [{"per": key, "max_in_flight": cap} for key, cap in zip(["site", "line"], caps, strict=True)],
        "guardrails": BY_HARDWARE,
        "waves": [{"name": "first", "size": 15}, {"name": "rest"}],
        "order": dice.choice(["id", "hash"]),
    }
    sizes = {each: dice.choice([1, 3, 7, 100]) for each in ("claim_batch", "place_batch")}
    placed = await Placed.start(pool, host, document, fleet, **sizes)
    flying: set[str] = set()
    for step in range(200):
        flying |= set(await placed.claim())
        assert flying == await in_flight(host, placed.id)
        await placed.require_all_go_that_may(caps)
        if step % 10 == 0:
            await require_right_numbers(host, placed.id)
        if dice.random() < 0.2:
            await host.execute(QUARANTINE, dice.choice("12"), dice.random() < 0.4)
        if step == 12:
            await host.execute("UPDATE ota_campaigns SET wave = 1 WHERE id = $1", placed.id)
        ends = dice.sample(sorted(flying), min(len(flying), dice.randint(1, 3)))
        await placed.report(*ends, status=dice.choice(["SUCCESS", "FAILED"]))
        flying -= set(ends)
        if not flying and not await host.fetchval(
            "SELECT count(*) FROM ota_device_status WHERE campaign_id = $1 AND status = 'PENDING'", placed.id
        ):
            break
    else:
        pytest.fail("devices are left")
    await require_right_numbers(host, placed.id)
