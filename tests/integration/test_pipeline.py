"""The dispatch pipeline: a slow broker does not delay claims, and at most one batch waits for answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest

from rollwave.domain.campaign import CampaignRef
from rollwave.engine import failpoints
from rollwave.engine.dispatch.pipeline import Dispatch
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.operations import pause_campaign
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import TENANT, Connection, breakdown, campaign_ref, connect, insert_campaign, make_dispatch
from tests.metrics import sample
from tests.servers import Mosquitto
from tests.support import eventually

BATCH, HALF, DEVICES = 4, 2, 20
NAMES = [f"dev-{n}" for n in range(1, DEVICES + 1)]


pytestmark = pytest.mark.usefixtures("listener_subscribed")


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


class HeldFailpoint:
    """A failpoint that stops every task until :meth:`release` lets it pass."""

    def __init__(self, point: Failpoint) -> None:
        self._point = point
        self._permits = asyncio.Semaphore(0)

    async def __call__(self, point: Failpoint) -> None:
        if point is self._point:
            await self._permits.acquire()

    def release(self, number: int = DEVICES) -> None:
        for _ in range(number):
            self._permits.release()


@contextmanager
def holding(point: Failpoint) -> Iterator[HeldFailpoint]:
    held = HeldFailpoint(point)
    failpoints.arm(held)
    try:
        yield held
    finally:
        failpoints.arm(None)


@pytest.fixture
async def answers() -> AsyncIterator[HeldFailpoint]:
    """Holds the broker's answers to each half batch."""
    with holding(Failpoint.PUBLISHED) as held:
        yield held


@pytest.fixture
async def marks() -> AsyncIterator[HeldFailpoint]:
    """Holds each batch once its answers are recorded."""
    with holding(Failpoint.MARKED) as held:
        yield held


class ReceivedCommands:
    """The commands that devices receive, in order."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._messages = session.messages()

    async def next(self, number: int) -> list[str]:
        async with asyncio.timeout(30):
            return [(await anext(self._messages)).topic.split("/")[3] for _ in range(number)]

    async def so_far(self) -> list[str]:
        """All commands that the broker has delivered by now."""
        await (await self._session.publish(command_topic(TENANT, "mark"), b"")).acknowledged()
        heard = []
        while (device := (await self.next(1))[0]) != "mark":
            heard.append(device)
        return heard


@pytest.fixture
async def received(mosquitto: Mosquitto) -> AsyncIterator[ReceivedCommands]:
    async with Session.connect(Broker.from_url(mosquitto.url)) as session:
        await session.subscribe("tenant/+/device/+/ota")
        yield ReceivedCommands(session)


@pytest.fixture
async def command_session(mosquitto: Mosquitto) -> AsyncIterator[CommandSession]:
    async with CommandSession(Broker.from_url(mosquitto.url)) as session:
        yield session


def batch_dispatch(pool: Pool, command_session: CommandSession, **options: Any) -> Dispatch:
    """Sends in batches of BATCH. Its turn ends when all is sent, not after a time."""
    return make_dispatch(pool, command_session, Settings(ROLLWAVE_CLAIM_BATCH=BATCH), turn_seconds=600.0, **options)


@pytest.fixture
def dispatching(pool: Pool, command_session: CommandSession) -> Dispatch:
    return batch_dispatch(pool, command_session)


async def claimed(host: Connection, number: int) -> bool:
    found: int = await host.fetchval("SELECT count(*) FROM ota_device_status WHERE attempt > 0")
    return found == number


async def assert_only_sent(host: Connection, campaign: int, number: int) -> None:
    assert await breakdown(host, campaign) == {"DOWNLOADING": number, "PENDING": DEVICES - number}
    leases = "SELECT count(*) FROM ota_device_status WHERE status = 'PENDING' AND due_at > now()"
    assert await host.fetchval(leases) == 0, "devices that were claimed and not sent to are released"


async def test_sending_goes_half_a_batch_at_a_time_and_never_exceeds_a_batch(
    host: Connection, received: ReceivedCommands, answers: HeldFailpoint, dispatching: Dispatch
) -> None:
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatching.dispatch(campaign_ref(campaign)))
    assert await received.next(BATCH) == NAMES[:BATCH]
    await eventually(lambda: claimed(host, 2 * BATCH), what="claimed ahead")
    assert await received.so_far() == []
    for sent in range(BATCH, 3 * BATCH, HALF):
        answers.release(1)
        assert await received.next(HALF) == NAMES[sent : sent + HALF]
        assert await received.so_far() == []
    answers.release()
    await sending
    assert await received.so_far() == NAMES[3 * BATCH :]
    assert await breakdown(host, campaign) == {"DOWNLOADING": DEVICES}


@pytest.mark.parametrize(
    ("halves", "ahead"), [(2, 2 * BATCH), (3, 3 * BATCH)], ids=["between batches", "within a batch"]
)
async def test_a_paused_campaign_sends_only_commands_already_in_the_sessions_queue(
    pool: Pool,
    host: Connection,
    received: ReceivedCommands,
    answers: HeldFailpoint,
    dispatching: Dispatch,
    halves: int,
    ahead: int,
) -> None:
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatching.dispatch(campaign_ref(campaign)))
    answers.release(halves - 2)
    assert await received.next(halves * HALF) == NAMES[: halves * HALF]
    await eventually(lambda: claimed(host, ahead), what="claimed ahead")
    await pause_campaign(pool, TENANT, campaign, actor="test")
    answers.release()
    await sending
    assert await received.so_far() == []
    await assert_only_sent(host, campaign, halves * HALF)


async def test_a_campaign_paused_while_answers_are_recorded_sends_no_more(
    pool: Pool, host: Connection, received: ReceivedCommands, marks: HeldFailpoint, dispatching: Dispatch
) -> None:
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatching.dispatch(campaign_ref(campaign)))
    assert await received.next(2 * BATCH) == NAMES[: 2 * BATCH]
    await eventually(lambda: claimed(host, 3 * BATCH), what="claimed ahead")
    await pause_campaign(pool, TENANT, campaign, actor="test")
    marks.release()
    await sending
    assert await received.so_far() == []
    await assert_only_sent(host, campaign, 2 * BATCH)


async def test_without_a_listener_only_commands_already_in_the_sessions_queue_are_sent(
    host: Connection, received: ReceivedCommands, answers: HeldFailpoint, dispatching: Dispatch
) -> None:
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatching.dispatch(campaign_ref(campaign)))
    assert await received.next(BATCH) == NAMES[:BATCH]
    await eventually(lambda: claimed(host, 2 * BATCH), what="claimed ahead")
    await host.execute("DELETE FROM rollwave_listener_slots")
    answers.release()
    await sending
    assert await received.so_far() == []
    await assert_only_sent(host, campaign, BATCH)


@pytest.mark.parametrize("devices", [1, DEVICES])
async def test_a_batch_whose_lease_has_ended_is_not_sent(
    pool: Pool, host: Connection, received: ReceivedCommands, command_session: CommandSession, devices: int
) -> None:
    """After the lease, another worker may have claimed the devices."""
    campaign = await insert_campaign(host, NAMES[:devices], rollout_rate=1000)
    ended = "SELECT bool_and(due_at < now()) FROM ota_device_status"

    async def outlast_the_lease(point: Failpoint) -> None:
        if point is Failpoint.CLAIMED:
            await eventually(lambda: host.fetchval(ended), what="the lease has ended")

    await command_session.session()
    failpoints.arm(outlast_the_lease)
    try:
        dispatching = make_dispatch(pool, command_session, Settings(ROLLWAVE_LEASE=1), turn_seconds=0.0)
        await dispatching.dispatch(campaign_ref(campaign))
    finally:
        failpoints.arm(None)
    assert await received.so_far() == []
    assert await breakdown(host, campaign) == {"PENDING": devices}


@pytest.mark.parametrize("asked", [1, 2], ids=["within a batch", "between batches"])
async def test_claims_are_released_when_the_status_query_fails(
    pool: Pool, host: Connection, received: ReceivedCommands, command_session: CommandSession, asked: int
) -> None:
    times = 0

    async def fails(_: CampaignRef) -> bool:
        nonlocal times
        times += 1
        if times == asked + 1:
            raise asyncpg.SerializationError("could not serialize access")
        return True

    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    with pytest.raises(asyncpg.SerializationError):
        await batch_dispatch(pool, command_session, still_runs=fails).dispatch(campaign_ref(campaign))
    assert await received.so_far() == NAMES[: asked * HALF]
    await assert_only_sent(host, campaign, asked * HALF)


async def test_the_claims_in_flight_metric_is_correct_after_a_cancellation(
    host: Connection, received: ReceivedCommands, answers: HeldFailpoint, dispatching: Dispatch
) -> None:
    before = sample("rollwave_claims_in_flight")
    campaign = await insert_campaign(host, NAMES, rollout_rate=1000)
    sending = asyncio.create_task(dispatching.dispatch(campaign_ref(campaign)))
    await received.next(BATCH)
    assert sample("rollwave_claims_in_flight") == before + BATCH
    answers.release(1)
    await received.next(HALF)

    def broken_off() -> bool:
        return sending.cancel() or sending.done()

    await eventually(lambda: broken_off() and sending.done(), what="cancelled, though it waits for answers")
    assert sample("rollwave_claims_in_flight") == before
