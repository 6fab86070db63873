"""Programming errors while reports are processed: the error is logged, and no report is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import failpoints
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.ingest.listener import Listener
from rollwave.engine.worker.worker import make_listener
from rollwave.mqtt.topics import ask_topic
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times
from rollwave.store.outage import ValueRefused, is_away
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_row,
    connect,
    devices,
    incoming_report,
    insert_campaign,
    mark_sent,
)
from tests.support import end, eventually, our_records

INGESTION = (
    Failpoint.RECEIVED,
    Failpoint.CLASSIFYING,
    Failpoint.PARSED,
    Failpoint.REPORTS_APPLIED,
    Failpoint.REPORTS_WRITTEN,
    Failpoint.REPORTS_COMMITTED,
    Failpoint.ACKNOWLEDGED,
)
ERRORS = (TypeError, ValueError, KeyError, asyncpg.UniqueViolationError)


TIMES = Times(1800, 1800, 86_400)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
def failing() -> Iterator[Callable[[Failpoint, type[Exception], int], None]]:
    """Let a failpoint raise this error a number of times."""

    def arm(where: Failpoint, kind: type[Exception], times: int) -> None:
        left = times

        async def fail(point: Failpoint) -> None:
            nonlocal left
            if point is where and left > 0:
                left -= 1
                raise kind(f"a fault at {point}")

        failpoints.arm(fail)

    yield arm
    failpoints.arm(None)


@asynccontextmanager
async def listening(pool: Pool, broker_url: str) -> AsyncIterator[Listener]:
    listener = make_listener(pool, Settings(MQTT_BROKER_URL=broker_url))
    running = asyncio.create_task(listener.run())
    try:
        await eventually(lambda: listener.presence.subscribed, what="it is subscribed")
        yield listener
    finally:
        await end(running)


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("where", INGESTION)
async def test_a_programming_error_drops_no_report(
    pool: Pool,
    host: Connection,
    broker: EmbeddedBroker,
    failing: Callable[[Failpoint, type[Exception], int], None],
    where: Failpoint,
    kind: type[Exception],
) -> None:
    campaign = await insert_campaign(host, 5)
    await mark_sent(host, campaign, [f"dev-{number}" for number in range(1, 6)])
    async with listening(pool, broker.url), devices(broker.url) as fleet:
        failing(where, kind, 3)
        for number in range(1, 5):
            fleet.report(f"dev-{number}", campaign, "SUCCESS")
        await eventually(lambda: _succeeded(host, campaign, 4), what="every report counts")
        fleet.report("dev-5", campaign, "SUCCESS")
        await eventually(lambda: _succeeded(host, campaign, 5), what="a later report is applied")
    assert await breakdown(host, campaign) == {"SUCCESS": 5}


async def _succeeded(host: Connection, campaign: int, number: int) -> bool:
    return (await campaign_row(host, campaign))[1] == number


async def test_an_error_of_another_task_is_not_taken_for_an_outage(
    pool: Pool,
    host: Connection,
    broker: EmbeddedBroker,
    failing: Callable[[Failpoint, type[Exception], int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Answers to questions are sent by another task. Its error is logged, and the listener starts again."""
    campaign = await insert_campaign(host, 1)
    await mark_sent(host, campaign, ["dev-1"])
    failing(Failpoint.ANSWERING, KeyError, 1)
    async with listening(pool, broker.url) as listener, devices(broker.url) as fleet:
        fleet.send(ask_topic(TENANT, "dev-1"), b"")
        await eventually(lambda: listener.fault == "failed: KeyError; see the log", what="it is known")
        [record] = [record for record in our_records(caplog) if record.levelname == "ERROR"]
        assert record.message == "ota_status_listener_disconnected"
        assert record.exc_info
        await eventually(lambda: listener.presence.subscribed, what="it listens again")
        fleet.report("dev-1", campaign, "SUCCESS")
        await eventually(lambda: _succeeded(host, campaign, 1), what="reports are applied")


async def test_a_batch_committed_after_an_error_of_another_task_starts_no_look(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    """The looks at settled campaigns are cancelled with the session. Nothing would cancel one that began later."""
    campaign = await insert_campaign(host, 1)
    await mark_sent(host, campaign, ["dev-1"])
    answering = asyncio.get_running_loop().create_future()

    async def commit_after_the_error(point: Failpoint) -> None:
        if point is Failpoint.ANSWERING:
            answering.set_result(asyncio.current_task())
            raise KeyError
        if point is Failpoint.REPORTS_COMMITTED:
            await asyncio.wait({await answering})
        elif point is Failpoint.CAMPAIGN_WRITTEN:
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    failpoints.arm(commit_after_the_error)
    try:
        async with listening(pool, broker.url) as listener, devices(broker.url) as fleet:
            fleet.report("dev-1", campaign, "SUCCESS")
            fleet.send(ask_topic(TENANT, "dev-1"), b"")
            await eventually(lambda: "KeyError" in listener.fault, what="the session has ended")
        assert await campaign_row(host, campaign) == ("RUNNING", 1, 0)
        await eventually(lambda: asyncio.all_tasks() == before, timeout=5, what="no task is left")
    finally:
        failpoints.arm(None)


@pytest.mark.parametrize("tenants", [1, 2])
async def test_a_programming_error_is_named_while_it_lasts(
    pool: Pool,
    host: Connection,
    failing: Callable[[Failpoint, type[Exception], int], None],
    caplog: pytest.LogCaptureFixture,
    tenants: int,
) -> None:
    names = ["north", "south"][:tenants]
    ids = {tenant: await insert_campaign(host, 2, tenant=tenant) for tenant in names}
    for campaign in ids.values():
        await mark_sent(host, campaign, ["dev-1"])
    ingest = Ingest(pool, Settings())
    failing(Failpoint.REPORTS_WRITTEN, TypeError, 1000)
    taking = asyncio.create_task(
        ingest.take_in(
            [incoming_report("dev-1", campaign, "SUCCESS", tenant=tenant) for tenant, campaign in ids.items()]
        )
    )
    try:
        await eventually(lambda: "cannot be written: TypeError, for" in ingest.fault)
        failpoints.arm(None)
        await asyncio.wait_for(taking, 20)
    finally:
        await end(taking)
    assert ingest.fault == "", "it is over"
    record = [record for record in our_records(caplog) if record.levelname == "ERROR"]
    assert 1 <= len(record) <= 2 * tenants - 1, "once for each transaction and kind of error"
    assert all(record.exc_info for record in record), "with its traceback"
    assert [await campaign_row(host, ids[each], each) for each in names] == [("RUNNING", 1, 0)] * tenants


async def test_only_postgresqls_error_about_a_value_drops_a_report(pool: Pool, host: Connection) -> None:
    """Not an error of the driver, which raises the same class for an argument that it cannot send."""
    campaign = await insert_campaign(host, 1)
    await mark_sent(host, campaign, ["dev-1"])

    async def write(attempt: int) -> None:
        report = Report(CampaignId(campaign), ExecutionStatus.SUCCESS, attempt=attempt)
        async with tenant_transaction(pool, TENANT) as connection:
            await executions.apply_reports(
                connection, TENANT, [DeviceReport(DeviceId("dev-1"), report)], TIMES, max_attempts=3
            )

    with pytest.raises(asyncpg.DataError, match="out of int32 range"):
        await write(1 << 40)
    await host.execute("""
        CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER picky BEFORE UPDATE ON ota_device_status FOR EACH ROW EXECUTE FUNCTION picky();
    """)
    with pytest.raises(ValueRefused, match="no"):
        await write(1)


async def test_a_violated_deferred_constraint_drops_only_its_own_report(pool: Pool, host: Connection) -> None:
    """PostgreSQL raises it at the commit, for everything that was written."""
    campaign = await insert_campaign(host, 4)
    await mark_sent(host, campaign, [f"dev-{number}" for number in range(1, 5)])
    await host.execute("""
        CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.device_id = 'dev-2' THEN RAISE 'no'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER picky AFTER UPDATE ON ota_device_status
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION picky();
    """)
    batch = [incoming_report(f"dev-{number}", campaign, "SUCCESS") for number in range(1, 5)]
    await asyncio.wait_for(Ingest(pool, Settings()).take_in(batch), 20)
    assert await campaign_row(host, campaign) == ("RUNNING", 3, 0)


async def test_a_wrongly_called_statement_is_not_taken_for_an_outage(host: Connection) -> None:
    with pytest.raises(asyncpg.InterfaceError) as caught:
        await host.fetchval("SELECT $1::int")
    assert not is_away(caught.value)
