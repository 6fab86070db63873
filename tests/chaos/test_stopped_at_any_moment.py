"""A campaign stopped at any moment sends at most the commands already on their way: one batch per worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from rollwave.engine import failpoints
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.operations import abort_campaign, pause_campaign, start_campaign
from rollwave.engine.stop import skip_rest
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store.database import create_pool
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_ref,
    connect,
    insert_campaign,
    make_dispatch,
    subscribed_listener,
)
from tests.servers import Mosquitto

WORKERS, BATCH, DEVICES, TRIALS = 2, 4, 40, 120
PAUSES = {Failpoint.CLAIMED, Failpoint.PUBLISHING}
IN_A_TRANSACTION = (Failpoint.CLAIM_WRITTEN, Failpoint.MARK_WRITTEN)
MOMENTS = [*IN_A_TRANSACTION, Failpoint.CLAIMED, Failpoint.PUBLISHING, Failpoint.PUBLISHED, Failpoint.MARKED]
TIMES_REACHED = 8
"""Less than the number of times that two workers reach each moment while they send all commands of a campaign."""


class Moment:
    """A random moment while a campaign is sent. A worker that reaches it waits there for the stop.

    It does not wait in a transaction, whose locks would delay the stop. At other moments workers sleep for a random
    time.
    """

    def __init__(self, point: Failpoint, dice: random.Random) -> None:
        self.reached, self.stopped = asyncio.Event(), asyncio.Event()
        self._point, self._dice, self._left = point, dice, dice.randint(1, TIMES_REACHED)

    async def meet(self, point: Failpoint) -> None:
        self._left -= point is self._point
        if self._left == 0 and not self.reached.is_set():
            self.reached.set()
            if point not in IN_A_TRANSACTION:
                await self.stopped.wait()
        elif point in PAUSES:
            await asyncio.sleep(self._dice.choice([0, 0.002, 0.02]))


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


class CommandStream:
    """The commands that the broker delivers, in order.

    A marker published after a commit separates before from after.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._messages = session.messages()
        self._marks = 0

    async def mark(self) -> bytes:
        """Publish a marker. Returns after the broker has acknowledged it."""
        self._marks += 1
        mark = b"mark %d" % self._marks
        await (await self._session.publish(command_topic(TENANT, "nobody"), mark)).acknowledged()
        return mark

    async def until(self, mark: bytes) -> list[str]:
        """The devices that were sent to between the previous marker and ``mark``."""
        received: list[str] = []
        async for message in self._messages:
            if message.payload == mark:
                return received
            received.append(message.topic.split("/")[3])
        raise AssertionError("the session was lost")


@pytest.fixture
async def command_stream(mosquitto: Mosquitto) -> AsyncIterator[CommandStream]:
    async with Session.connect(Broker.from_url(mosquitto.url)) as session:
        await session.subscribe("tenant/+/device/+/ota")
        yield CommandStream(session)


async def test_after_a_stop_each_worker_sends_at_most_one_batch(
    database: str, mosquitto: Mosquitto, command_stream: CommandStream
) -> None:
    settings = Settings(ROLLWAVE_CLAIM_BATCH=BATCH)
    dice = random.Random(6)
    paused = 0
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(connect(database))
        pool = await stack.enter_async_context(create_pool(database))
        await stack.enter_async_context(subscribed_listener(pool))
        workers = []
        for _ in range(WORKERS):
            session = await stack.enter_async_context(CommandSession(Broker.from_url(mosquitto.url)))
            workers.append(make_dispatch(pool, session, settings))
        for number in range(TRIALS):
            point = MOMENTS[number // 2 % len(MOMENTS)]
            moment = Moment(point, dice)
            failpoints.arm(moment.meet)
            campaign = await insert_campaign(host, DEVICES, rollout_rate=1000)
            sending = [asyncio.create_task(each.dispatch(campaign_ref(campaign))) for each in workers]
            await asyncio.wait_for(moment.reached.wait(), 30)
            paused, stop = (paused, abort_campaign) if number % 2 else (campaign, pause_campaign)
            await stop(pool, TENANT, campaign, actor="test")
            before = await command_stream.until(await command_stream.mark())
            moment.stopped.set()
            await asyncio.gather(*sending)
            late = await command_stream.until(await command_stream.mark())
            assert len(late) <= WORKERS * BATCH, f"trial {number}: {len(before)} before, {late} after the stop"
            assert late or point is not Failpoint.PUBLISHING, "stopped in the middle of a batch"
            await workers[0].dispatch(campaign_ref(campaign))  # This worker does not know about the stop.
            assert await command_stream.until(await command_stream.mark()) == []
            if number % 2:
                await skip_rest(pool, campaign_ref(campaign))
            await stands_as_sent(host, campaign, {*before, *late}, "SKIPPED" if number % 2 else "PENDING")
        await start_campaign(pool, TENANT, paused, actor="test")
        await asyncio.gather(*(each.dispatch(campaign_ref(paused)) for each in workers))
        await stands_as_sent(host, paused, {f"dev-{each}" for each in range(1, DEVICES + 1)}, "PENDING")


async def stands_as_sent(host: Connection, campaign: int, sent: set[str], others: str) -> None:
    found = await breakdown(host, campaign)
    assert found == {status: n for status, n in (("DOWNLOADING", len(sent)), (others, DEVICES - len(sent))) if n}
    attempts = await host.fetch("SELECT DISTINCT attempt FROM ota_device_status WHERE campaign_id = $1", campaign)
    assert {row["attempt"] for row in attempts} <= {0, 1}
