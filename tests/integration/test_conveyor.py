"""Commands on their way: the broker's latency costs nothing, and never is more than a batch unanswered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rollwave.engine import failpoints
from rollwave.engine.commands import pause_campaign
from rollwave.engine.dispatcher import Dispatcher
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.publisher import Publisher
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import TENANT, Connection, breakdown, connect, due, insert_campaign
from tests.servers import Mosquitto
from tests.support import eventually

BATCH, DEVICES = 4, 12


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def answers() -> AsyncIterator[asyncio.Event]:
    """Until it is set, no answer of the broker reaches the worker."""
    come = asyncio.Event()

    async def wait(point: Failpoint) -> None:
        if point is Failpoint.PUBLISHED:
            await come.wait()

    failpoints.arm(wait)
    yield come
    failpoints.arm(None)


class Wire:
    """What the devices are sent, in its order."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._messages = session.messages()

    async def next(self, number: int) -> list[str]:
        return [(await anext(self._messages)).topic.split("/")[3] for _ in range(number)]

    async def so_far(self) -> list[str]:
        """All that the broker has carried by now."""
        await (await self._session.publish(command_topic(TENANT, "mark"), b"")).acknowledged()
        heard = []
        while (device := (await self.next(1))[0]) != "mark":
            heard.append(device)
        return heard


@pytest.fixture
async def wire(mosquitto: Mosquitto) -> AsyncIterator[Wire]:
    async with Session.connect(Broker.from_url(mosquitto.url)) as session:
        await session.subscribe("tenant/+/device/+/ota")
        yield Wire(session)


async def claimed_ahead(host: Connection) -> bool:
    number: int = await host.fetchval("SELECT count(*) FROM ota_device_status WHERE attempt > 0")
    return number == 2 * BATCH


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "paused"])
async def test_two_halves_go_and_no_more_before_one_is_answered(
    pool: Pool, host: Connection, mosquitto: Mosquitto, wire: Wire, answers: asyncio.Event, stopped: bool
) -> None:
    names = [f"dev-{n}" for n in range(1, DEVICES + 1)]
    campaign = await insert_campaign(host, names, rollout_rate=1000)
    async with Publisher(Broker.from_url(mosquitto.url)) as publisher:
        dispatcher = Dispatcher(pool, publisher, Settings(ROLLWAVE_CLAIM_BATCH=BATCH))
        sending = asyncio.create_task(dispatcher.dispatch(due(campaign)))
        assert await wire.next(BATCH) == names[:BATCH]
        await eventually(lambda: claimed_ahead(host), what="claimed ahead")
        assert await wire.so_far() == []
        if stopped:
            await pause_campaign(pool, TENANT, campaign, actor="test")
        answers.set()
        await sending
    if stopped:
        assert await wire.so_far() == []
        assert await breakdown(host, campaign) == {"DOWNLOADING": BATCH, "PENDING": DEVICES - BATCH}
        leases = "SELECT count(*) FROM ota_device_status WHERE status = 'PENDING' AND due_at > now()"
        assert await host.fetchval(leases) == 0, "what was claimed ahead is given back"
    else:
        assert await wire.so_far() == names[BATCH:]
        assert await breakdown(host, campaign) == {"DOWNLOADING": DEVICES}
