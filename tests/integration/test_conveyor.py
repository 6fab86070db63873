"""Commands on their way: the broker's latency costs nothing, and never is more than a batch unanswered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.engine import failpoints
from rollwave.engine.commands import pause_campaign
from rollwave.engine.dispatch.pipeline import Dispatch
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import TENANT, Connection, breakdown, connect, dispatch, due, insert_campaign
from tests.servers import Mosquitto
from tests.support import eventually

BATCH, HALF, DEVICES = 4, 2, 20
NAMES = [f"dev-{n}" for n in range(1, DEVICES + 1)]


pytestmark = pytest.mark.usefixtures("heard")


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


class Held:
    """So many may pass a failpoint, and no more before they are let."""

    def __init__(self, point: Failpoint) -> None:
        self._point = point
        self._permits = asyncio.Semaphore(0)

    async def __call__(self, point: Failpoint) -> None:
        if point is self._point:
            await self._permits.acquire()

    def let(self, number: int = DEVICES) -> None:
        for _ in range(number):
            self._permits.release()


@contextmanager
def holding(point: Failpoint) -> Iterator[Held]:
    held = Held(point)
    failpoints.arm(held)
    try:
        yield held
    finally:
        failpoints.arm(None)


@pytest.fixture
async def answers() -> AsyncIterator[Held]:
    """Each lets the worker hear what became of half a batch."""
    with holding(Failpoint.PUBLISHED) as held:
        yield held


@pytest.fixture
async def marks() -> AsyncIterator[Held]:
    """Each lets a batch that is marked be done with."""
    with holding(Failpoint.MARKED) as held:
        yield held


class Wire:
    """What the devices are sent, in its order."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._messages = session.messages()

    async def next(self, number: int) -> list[str]:
        async with asyncio.timeout(30):
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


@pytest.fixture
async def dispatcher(pool: Pool, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dispatch]:
    monkeypatch.setattr(
        "rollwave.engine.dispatch.pipeline.TURN_SECONDS", 600.0
    )  # a turn ends when all is sent, not by the clock
    async with CommandSession(Broker.from_url(mosquitto.url)) as publisher:
        yield dispatch(pool, publisher, Settings(ROLLWAVE_CLAIM_BATCH=BATCH))


async def claimed(host: Connection, number: int) -> bool:
    found: int = await host.fetchval("SELECT count(*) FROM ota_device_status WHERE attempt > 0")
    return found == number


async def only_these_were_sent(host: Connection, campaign: int, number: int) -> None:
    assert await breakdown(host, campaign) == {"DOWNLOADING": number, "PENDING": DEVICES - number}
    leases = "SELECT count(*) FROM ota_device_status WHERE status = 'PENDING' AND due_at > now()"
    assert await host.fetchval(leases) == 0, "what was claimed and not sent is given back"


async def test_sending_goes_half_a_batch_at_a_time_and_never_exceeds_a_batch(
    host: Connection, wire: Wire, answers: Held, dispatcher: Dispatch
) -> None:
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatcher.dispatch(due(campaign)))
    assert await wire.next(BATCH) == NAMES[:BATCH]
    await eventually(lambda: claimed(host, 2 * BATCH), what="claimed ahead")
    assert await wire.so_far() == []
    for sent in range(BATCH, 3 * BATCH, HALF):
        answers.let(1)
        assert await wire.next(HALF) == NAMES[sent : sent + HALF]
        assert await wire.so_far() == []
    answers.let()
    await sending
    assert await wire.so_far() == NAMES[3 * BATCH :]
    assert await breakdown(host, campaign) == {"DOWNLOADING": DEVICES}


@pytest.mark.parametrize(
    ("halves", "ahead"), [(2, 2 * BATCH), (3, 3 * BATCH)], ids=["between batches", "in the midst of one"]
)
async def test_a_paused_campaign_sends_only_what_was_already_handed_over(
    pool: Pool, host: Connection, wire: Wire, answers: Held, dispatcher: Dispatch, halves: int, ahead: int
) -> None:
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatcher.dispatch(due(campaign)))
    answers.let(halves - 2)
    assert await wire.next(halves * HALF) == NAMES[: halves * HALF]
    await eventually(lambda: claimed(host, ahead), what="claimed ahead")
    await pause_campaign(pool, TENANT, campaign, actor="test")
    answers.let()
    await sending
    assert await wire.so_far() == []
    await only_these_were_sent(host, campaign, halves * HALF)


async def test_a_campaign_paused_while_answers_are_recorded_sends_no_more(
    pool: Pool, host: Connection, wire: Wire, marks: Held, dispatcher: Dispatch
) -> None:
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatcher.dispatch(due(campaign)))
    assert await wire.next(2 * BATCH) == NAMES[: 2 * BATCH]
    await eventually(lambda: claimed(host, 3 * BATCH), what="claimed ahead")
    await pause_campaign(pool, TENANT, campaign, actor="test")
    marks.let()
    await sending
    assert await wire.so_far() == []
    await only_these_were_sent(host, campaign, 2 * BATCH)


@pytest.mark.parametrize("asked", [1, 2], ids=["in the midst of a batch", "between batches"])
async def test_claims_are_released_when_the_status_query_fails(
    host: Connection, wire: Wire, dispatcher: Dispatch, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    times = 0

    async def fails(_: CampaignRef) -> bool:
        nonlocal times
        times += 1
        if times == asked:
            raise asyncpg.SerializationError("could not serialize access")
        return True

    monkeypatch.setattr(dispatcher, "_still_runs", fails)
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    with pytest.raises(asyncpg.SerializationError):
        await dispatcher.dispatch(due(campaign))
    assert await wire.so_far() == NAMES[: asked * HALF]
    await only_these_were_sent(host, campaign, asked * HALF)


async def test_the_claims_in_flight_metric_is_correct_after_a_cancellation(
    host: Connection, wire: Wire, answers: Held, dispatcher: Dispatch
) -> None:
    before = metrics.claims_in_flight._value.get()
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatcher.dispatch(due(campaign)))
    await wire.next(BATCH)
    assert metrics.claims_in_flight._value.get() == before + BATCH
    answers.let(1)
    await wire.next(HALF)

    def broken_off() -> bool:
        return sending.cancel() or sending.done()

    await eventually(lambda: broken_off() and sending.done(), what="cancelled, though it waits for answers")
    assert metrics.claims_in_flight._value.get() == before
