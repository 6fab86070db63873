"""A device over whose command the broker ends the session waits alone. The others get their commands promptly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rollwave.domain.campaign import CampaignRef
from rollwave.engine.dispatch.session import CommandSession
from rollwave.mqtt.broker import Broker, Protocol
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    always_succeeds,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    devices,
    events,
    insert_campaign,
    make_dispatch,
    wait_until_ended,
    worker,
)
from tests.proxy import PUBACK, PUBLISH, Do, Packet, Proxy, proxy, publishing, to_client
from tests.servers import Mosquitto
from tests.support import eventually

PROMPT_SECONDS = 30.0
ENDINGS = [Do.CLOSE, Do.RESET, Do.DISCONNECT]


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def mqtt_proxy(mosquitto: Mosquitto) -> AsyncIterator[Proxy]:
    async with proxy(mosquitto.url) as mqtt_proxy:
        yield mqtt_proxy


def is_bad(topic: str) -> bool:
    return "bad" in topic


async def refused(host: Connection) -> dict[str, str]:
    """Devices that wait because the broker refuses their command, and the reasons."""
    rows = await host.fetch("SELECT device_id, refused_for FROM ota_device_status WHERE refusals > 0")
    return {row["device_id"]: row["refused_for"] for row in rows}


def named(number: int, bad: set[int]) -> list[str]:
    return [f"{'bad' if each in bad else 'dev'}-{each}" for each in range(number)]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
@pytest.mark.parametrize(
    ("number", "bad"),
    [
        (1, {0}),
        (2, {1}),
        (5, {2}),
        (20, {0, 1, 2, 3, 4}),
        (200, {7, 99, 100, 199}),
        (1000, {500}),
        (1000, {3, 400, 401}),
    ],
    ids=["alone", "after one", "among five", "the first five", "four", "one of a thousand", "three of a thousand"],
)
async def test_a_device_whose_command_ends_the_session_waits_alone(
    database: str,
    host: Connection,
    mosquitto: Mosquitto,
    mqtt_proxy: Proxy,
    tmp_path: Path,
    ending: Do,
    number: int,
    bad: set[int],
) -> None:
    mqtt_proxy.rules.append(publishing(is_bad, ending))
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(database, mqtt_proxy.url, tmp_path / "log") as it,
    ):
        names = named(number, bad)
        campaign = await insert_campaign(host, names, rollout_rate=100_000)

        async def done() -> bool:
            found = await breakdown(host, campaign)
            return (found.get("SUCCESS", 0), found.get("PENDING", 0)) == (number - len(bad), len(bad))

        await eventually(done, timeout=PROMPT_SECONDS, what="the other devices have succeeded")

        async def found() -> bool:
            return await refused(host) == {names[each]: "connection_ended" for each in bad}

        await eventually(found, what="the devices are recorded as refused")
        sent = fleet.times_sent(campaign)
        assert {each.attempt for each in fleet.commands} <= {1}
        again = sum(sent.values()) - len(sent)
        # A reset loses answers on their way, so those commands have to be sent again.
        assert again <= 5 + (number // 2 if ending is Do.RESET else number // 10), f"{again} duplicates"
        assert max(sent.values(), default=1) <= 6
        assert await campaign_row(host, campaign) == ("RUNNING", number - len(bad), 0)
        await eventually(lambda: events(it, "ota_devices_refused"), what="it is logged")
        assert events(it, "ota_devices_refused")[0]["reason"] == "the broker ends the connection over it"

        # The delays grow, and the broker may accept the command later.
        refusals = "SELECT min(refusals) FROM ota_device_status WHERE refusals > 0"
        first = await host.fetchval(refusals)

        async def grown() -> bool:
            return bool(await host.fetchval(refusals) > first)

        await eventually(grown, what="tried again")
        mqtt_proxy.rules.clear()
        await wait_until_ended(host, campaign)
        assert await refused(host) == {}


@pytest.mark.parametrize("ending", [Do.CLOSE, Do.RESET], ids=lambda ending: ending.name)
async def test_a_device_whose_command_ends_the_session_waits_alone_on_mqtt_3_1_1(
    database: str, host: Connection, mosquitto: Mosquitto, mqtt_proxy: Proxy, tmp_path: Path, ending: Do
) -> None:
    mqtt_proxy.rules.append(publishing(is_bad, ending))
    async with (
        devices(mosquitto.url, always_succeeds),
        worker(database, mqtt_proxy.url, tmp_path / "log", MQTT_PROTOCOL="3.1.1"),
    ):
        campaign = await insert_campaign(host, named(100, {50}), rollout_rate=100_000)

        async def done() -> bool:
            return await breakdown(host, campaign) == {"SUCCESS": 99, "PENDING": 1}

        await eventually(done, timeout=PROMPT_SECONDS, what="the other devices have succeeded")

        async def found() -> bool:
            return await refused(host) == {"bad-50": "connection_ended"}

        await eventually(found, what="the device is recorded as refused")


async def test_a_device_that_ends_the_session_does_not_delay_other_campaigns(
    database: str, host: Connection, mosquitto: Mosquitto, mqtt_proxy: Proxy, tmp_path: Path
) -> None:
    mqtt_proxy.rules.append(publishing(is_bad, Do.RESET))
    async with devices(mosquitto.url, always_succeeds), worker(database, mqtt_proxy.url, tmp_path / "log"):
        await insert_campaign(host, named(10, set(range(10))), rollout_rate=100_000)
        others = [await insert_campaign(host, 50, tenant=tenant, rollout_rate=25) for tenant in ("east", "west")]
        for tenant, campaign in zip(("east", "west"), others, strict=True):
            await wait_until_ended(host, campaign, tenant=tenant, timeout=PROMPT_SECONDS)
        assert {*await refused(host)} <= {*named(10, set(range(10)))}


async def test_no_device_is_suspected_after_an_outage(
    database: str, host: Connection, mosquitto: Mosquitto, mqtt_proxy: Proxy, tmp_path: Path
) -> None:
    """Connections end at random moments, and the broker is unavailable for a while."""
    blamed: dict[str, str] = {}
    async with devices(mosquitto.url, always_succeeds), worker(database, mqtt_proxy.url, tmp_path / "log"):
        campaign = await insert_campaign(host, 400, rollout_rate=20)
        for round_number in range(60):
            await asyncio.sleep(0.03 + 0.001 * (round_number % 17))
            mqtt_proxy.refusing = round_number % 10 > 6
            mqtt_proxy.cut([Do.RESET, Do.CLOSE][round_number % 2])
            blamed |= await refused(host)
        mqtt_proxy.refusing = False
        await wait_until_ended(host, campaign, timeout=60)
        assert (blamed, await refused(host)) == ({}, {})


async def test_a_session_that_ends_by_itself_is_not_taken_for_a_size_limit(
    database: str, host: Connection, mosquitto: Mosquitto, mqtt_proxy: Proxy, tmp_path: Path
) -> None:
    """The connection is cut at large messages only, by chance. Soon after, a session ends at a small message, too."""
    small: list[Packet] = []

    def cut_large(packet: Packet) -> Do | None:
        if packet.kind != PUBLISH or not packet.to_broker or not packet.topics[0].endswith("/ota"):
            return None
        if len(packet.raw) > 120:
            return Do.RESET
        small.append(packet)
        asyncio.get_running_loop().call_later(0.1, mqtt_proxy.cut)
        return None

    mqtt_proxy.rules.append(cut_large)
    async with devices(mosquitto.url, always_succeeds), worker(database, mqtt_proxy.url, tmp_path / "log"):
        campaign = await insert_campaign(host, 1)

        async def tried() -> bool:
            return len(small) > 2 or (await campaign_row(host, campaign))[0] != "RUNNING"

        await eventually(tried, what="tried")
        assert (await campaign_row(host, campaign))[0] == "RUNNING", (
            "it is not paused because of the size of its command"
        )
        assert await refused(host) == {}
        mqtt_proxy.rules.clear()
        await wait_until_ended(host, campaign)


async def test_no_device_is_suspected_when_every_session_ends(
    database: str, host: Connection, mosquitto: Mosquitto, mqtt_proxy: Proxy, tmp_path: Path
) -> None:
    mqtt_proxy.rules.append(publishing(lambda topic: topic.endswith("/ota"), Do.CLOSE))
    async with devices(mosquitto.url, always_succeeds), worker(database, mqtt_proxy.url, tmp_path / "log") as it:
        campaign = await insert_campaign(host, 5, rollout_rate=100_000)
        await eventually(lambda: len(mqtt_proxy.published) > 10, what="tried")
        await eventually(lambda: events(it, "ota_mqtt_publish_failed"), what="logged")
        assert await refused(host) == {}
        mqtt_proxy.rules.clear()
        await wait_until_ended(host, campaign)


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that accepts packets of up to 1,500 bytes."""
    with Mosquitto(tmp_path, config="max_packet_size 1500\n") as broker:
        yield broker


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("number", [1, 2, 50])
async def test_a_command_larger_than_the_broker_accepts_pauses_its_campaign(
    database: str, host: Connection, narrow: Mosquitto, tmp_path: Path, protocol: Protocol, number: int
) -> None:
    settings = {"ROLLWAVE_MQTT_PROTOCOL": protocol}
    async with devices(narrow.url, always_succeeds), worker(database, narrow.url, tmp_path / "log", **settings) as it:
        campaign = await insert_campaign(host, number, status="PAUSED", rollout_rate=100_000)
        url = "https://a.invalid/" + "f" * 1550
        await host.execute("UPDATE firmware_versions SET file_url = $1", url)
        await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
        other = await insert_campaign(host, 20, tenant="east", rollout_rate=100_000)

        async def held() -> bool:
            return (await campaign_row(host, campaign))[0] == "PAUSED"

        await eventually(held, timeout=PROMPT_SECONDS, what="paused")
        reason = await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", campaign)
        assert "bytes" in reason
        assert "maximum packet size" in reason
        assert ("1500" in reason) is (protocol == "5"), "where the broker announces its limit"
        await eventually(lambda: events(it, "ota_campaign_held"), what="logged")
        assert await refused(host) == {}
        assert await breakdown(host, campaign) == {"PENDING": number}
        due_now = "SELECT bool_and(attempt = 0 OR due_at <= now()) FROM ota_device_status WHERE campaign_id = $1"
        assert await host.fetchval(due_now, campaign), "its claim is released"
        await wait_until_ended(host, other, tenant="east")


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize(("letter", "url"), [("x", 1260), ("\u00fc", 1200)], ids=["ASCII", "two bytes each"])
async def test_a_device_whose_id_makes_the_command_too_large_waits_alone(
    database: str, host: Connection, narrow: Mosquitto, tmp_path: Path, protocol: Protocol, letter: str, url: int
) -> None:
    long_id = letter * 128
    settings = {"ROLLWAVE_MQTT_PROTOCOL": protocol}
    async with devices(narrow.url, always_succeeds), worker(database, narrow.url, tmp_path / "log", **settings):
        campaign = await insert_campaign(host, ["dev-1", "dev-2", long_id, "dev-3"], status="PAUSED", rollout_rate=1000)
        await host.execute("UPDATE firmware_versions SET file_url = $1", "https://a.invalid/" + "f" * url)
        await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")

        async def done() -> bool:
            return await breakdown(host, campaign) == {"SUCCESS": 3, "PENDING": 1}

        await eventually(done, timeout=PROMPT_SECONDS, what="the other devices have succeeded")

        async def found() -> bool:
            return await refused(host) == {long_id: "too_large"}

        await eventually(found, what="the device is recorded as refused")
        assert (await campaign_row(host, campaign))[0] == "RUNNING"


class PublishWatcher:
    """Records which devices are sent to, when, and over how many connections."""

    def __init__(self, mqtt_proxy: Proxy) -> None:
        self.at: list[tuple[str, float]] = []
        mqtt_proxy.rules.insert(0, self._note)

    def _note(self, packet: Packet) -> None:
        if packet.kind == PUBLISH and packet.to_broker and "/rollwave-probe/" not in packet.topics[0]:
            self.at.append((packet.topics[0].split("/")[3], time.monotonic()))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.at]


@pytest.fixture
async def command_session(mqtt_proxy: Proxy) -> AsyncIterator[CommandSession]:
    async with CommandSession(Broker.from_url(mqtt_proxy.url)) as command_session:
        yield command_session


@pytest.mark.usefixtures("listener_subscribed")
@pytest.mark.parametrize("looks", range(5))
async def test_isolation_sends_nothing_after_a_stop(
    pool: Pool,
    host: Connection,
    mqtt_proxy: Proxy,
    command_session: CommandSession,
    looks: int,
) -> None:
    """The campaign is checked before each part that is sent again, and before the second try of one device."""
    seen = PublishWatcher(mqtt_proxy)
    mqtt_proxy.rules.append(publishing(is_bad, Do.CLOSE))
    left, published = looks, 0

    async def still_runs(_: CampaignRef) -> bool:
        nonlocal left, published
        left -= 1
        published = len(seen.at)
        return left >= 0

    dispatching = make_dispatch(pool, command_session, Settings(), still_runs=still_runs)
    campaign = await insert_campaign(host, named(8, {0}), rollout_rate=1000)
    await dispatching.dispatch(campaign_ref(campaign))
    assert left < 0
    assert len(seen.at) == published, "nothing is sent after the campaign was stopped"
    assert seen.names.count("bad-0") <= 1 + looks


@pytest.mark.usefixtures("listener_subscribed")
async def test_an_error_during_isolation_loses_no_result_found_before_it(
    pool: Pool, host: Connection, mqtt_proxy: Proxy, command_session: CommandSession
) -> None:
    mqtt_proxy.rules.append(publishing(is_bad, Do.CLOSE))
    looks = 0

    async def fails(_: CampaignRef) -> bool:
        nonlocal looks
        looks += 1
        if looks == 6:
            raise LookupError("the database says no")
        return True

    dispatching = make_dispatch(pool, command_session, Settings(ROLLWAVE_CLAIM_BATCH=20), still_runs=fails)
    campaign = await insert_campaign(host, named(10, {0}), rollout_rate=1000)
    with pytest.raises(LookupError):
        await dispatching.dispatch(campaign_ref(campaign))
    assert await refused(host) == {"bad-0": "connection_ended"}
    assert (await breakdown(host, campaign))["DOWNLOADING"] >= 1


@pytest.mark.usefixtures("listener_subscribed")
async def test_isolation_sends_nothing_after_the_lease(
    pool: Pool, host: Connection, mqtt_proxy: Proxy, command_session: CommandSession
) -> None:
    seen = PublishWatcher(mqtt_proxy)
    mqtt_proxy.rules.append(publishing(is_bad, Do.CLOSE))
    mqtt_proxy.delay = 0.01
    lease = 1.2
    campaign = await insert_campaign(host, named(40, set(range(0, 40, 2))), rollout_rate=1000)
    began = time.monotonic()
    await make_dispatch(pool, command_session, Settings(ROLLWAVE_LEASE=lease)).dispatch(campaign_ref(campaign))
    mqtt_proxy.delay = 0
    assert time.monotonic() - began < lease + 2
    assert [name for name, at in seen.at if at > began + lease + 0.5] == []
    assert len(seen.at) < len(mqtt_proxy.published), "test messages were published"
    assert len(await refused(host)) < 20, "the lease ended before all were tried"


@pytest.mark.usefixtures("listener_subscribed")
@pytest.mark.parametrize("isolated", [False, True])
async def test_a_silent_broker_is_waited_for_no_longer_than_the_lease(
    pool: Pool, host: Connection, mqtt_proxy: Proxy, command_session: CommandSession, isolated: bool
) -> None:
    """``isolated``: the first session has ended because of a device's command."""
    if isolated:
        mqtt_proxy.rules.append(publishing(is_bad, Do.RESET))
    mqtt_proxy.rules.append(to_client(PUBACK, Do.DROP))
    campaign = await insert_campaign(host, ["bad-1", "dev-2"])
    await command_session.session()
    settings = Settings(ROLLWAVE_LEASE=2, ROLLWAVE_PUBLISH_TIMEOUT=60)
    async with asyncio.timeout(20):
        await make_dispatch(pool, command_session, settings, turn_seconds=0.0).dispatch(campaign_ref(campaign))


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_known_bad_device_does_not_end_the_shared_session_again(
    pool: Pool, host: Connection, mqtt_proxy: Proxy, command_session: CommandSession
) -> None:
    mqtt_proxy.rules.append(publishing(is_bad, Do.RESET))
    campaign = await insert_campaign(host, named(3, {1}), rollout_rate=1000)
    dispatching = make_dispatch(pool, command_session, Settings(OTA_TICK_INTERVAL=0.1))
    await dispatching.dispatch(campaign_ref(campaign))
    assert await refused(host) == {"bad-1": "connection_ended"}
    shared = await command_session.session()

    async def tried_again() -> bool:
        await dispatching.dispatch(campaign_ref(campaign))
        return int((await device_row(host, campaign, "bad-1"))["refusals"]) > 1

    await eventually(tried_again, what="tried again")
    assert await command_session.session() is shared
    assert shared.connected
