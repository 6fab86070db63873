"""What must not stop, starve or fail anybody: words of a host's own, rows that are locked, clocks, refusals, stops."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from rollwave import metrics
from rollwave.domain.ids import DeviceId
from rollwave.domain.refusal import Refusal
from rollwave.domain.reports.coalesce import Outcome
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import failpoints
from rollwave.engine.dispatch.pipeline import Dispatch
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.upkeep.gates import Upkeep
from rollwave.engine.worker.tick import Ticker
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming
from rollwave.settings import Settings
from rollwave.store import executions, listeners
from rollwave.store.database import Pool, create_pool, tenant_transaction
from rollwave.store.executions import Claimed, Times
from rollwave.store.migrate import migrate
from tests.engine import (
    TENANT,
    Command,
    Connection,
    breakdown,
    campaign_row,
    connect,
    device_row,
    devices,
    due,
    ends,
    events,
    insert_campaign,
    said,
    says,
    sent_to,
    succeeds,
    worker,
)
from tests.servers import Mosquitto
from tests.support import Running, eventually

REFUSED = ("dev-1", "dev-2")


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
def choosy(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that refuses commands to some devices."""
    denied = "".join(f"topic deny tenant/+/device/{device}/ota\n" for device in REFUSED)
    (tmp_path / "acl").write_text(f"topic readwrite #\n{denied}")
    with Mosquitto(tmp_path, config=f"acl_file {tmp_path}/acl\n") as broker:
        yield broker


async def take_in(pool: Pool, batch: Sequence[Incoming]) -> None:
    """Have the engine take in one batch, as it would from the broker."""
    await asyncio.wait_for(Ingest(pool, Settings()).take_in(batch), 10)


@asynccontextmanager
async def ticking(pool: Pool, broker_url: str, tick: float) -> AsyncIterator[Ticker]:
    """The engine's sending half, tick by tick."""
    async with CommandSession(Broker.from_url(broker_url)) as publisher:
        ticker = Ticker(pool, publisher, Settings(OTA_TICK_INTERVAL=tick))
        yield ticker
        await ticker.drain()


async def test_a_campaign_that_comes_up_twice_in_a_batch_is_counted_and_stopped_once(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 10)
    await sent_to(host, campaign, ["dev-1", "dev-2"], attempt=2)
    await take_in(
        pool,
        [
            said("dev-1", campaign, "FAILED"),
            said("dev-2", campaign, "SUCCESS", attempt=1),
            said("dev-2", campaign, "FAILED", attempt=2),
        ],
    )
    assert await campaign_row(host, campaign) == ("ABORTED", 0, 2)
    assert await breakdown(host, campaign) == {"FAILED": 2, "SKIPPED": 8}
    assert await host.fetchval("SELECT count(*) FROM ota_campaign_history WHERE event = 'aborted'") == 1


async def test_what_a_device_said_first_is_written_first(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 1, abort_threshold=1.0)
    await sent_to(host, campaign, ["dev-1"])
    intake, go_on = Ingest(pool, Settings()), asyncio.Event()

    async def hold_the_first(point: failpoints.Failpoint) -> None:
        if point is failpoints.Failpoint.PARSED:
            failpoints.arm(None)
            await go_on.wait()

    failpoints.arm(hold_the_first)
    try:
        batches = [
            asyncio.create_task(intake.take_in([said("dev-1", campaign, word)])) for word in ("INSTALLING", "FAILED")
        ]
        assert not (await asyncio.wait({batches[1]}, timeout=0.3))[0], "it overtook"
    finally:
        failpoints.arm(None)
        go_on.set()
    await asyncio.gather(*batches)
    assert await host.fetchval("SELECT failed_reason FROM ota_device_status") == "reported", "not its first word"


async def test_words_of_a_hosts_own_stop_nobody(pool: Pool, host: Connection) -> None:
    await host.execute("ALTER TABLE ota_device_status DROP CONSTRAINT ota_device_status_status_check")
    await host.execute("ALTER TABLE ota_campaigns DROP CONSTRAINT ota_campaigns_status_check")
    await host.execute("ALTER TABLE ota_campaigns ALTER succeeded DROP NOT NULL, ALTER failed DROP NOT NULL")
    two = ["dev-1", "dev-2"]
    cancelled, archived, uncounted = [await insert_campaign(host, two, abort_threshold=1.0) for _ in range(3)]
    for campaign in (cancelled, archived, uncounted):
        await sent_to(host, campaign, two)
    await host.execute(
        "UPDATE ota_device_status SET status = 'CANCELLED' WHERE campaign_id = $1 AND device_id = 'dev-1'", cancelled
    )
    await host.execute("UPDATE ota_campaigns SET status = 'ARCHIVED' WHERE id = $1", archived)
    await host.execute("UPDATE ota_campaigns SET succeeded = NULL, failed = NULL WHERE id = $1", uncounted)
    refused = metrics.reports.labels(Outcome.INVALID.value)
    refused_before = refused._value.get()
    await take_in(
        pool,
        [said("dev-1", each, "FAILED") for each in (cancelled, archived, uncounted)]
        + [said("dev-2", each, "SUCCESS") for each in (cancelled, archived, uncounted)],
    )
    assert refused._value.get() == refused_before, "nobody's report was to blame"
    assert await breakdown(host, cancelled) == {"CANCELLED": 1, "SUCCESS": 1}
    assert await campaign_row(host, archived) == ("ARCHIVED", 1, 1)
    assert await campaign_row(host, uncounted) == ("RUNNING", 1, 1)
    for campaign in (cancelled, archived, uncounted):
        await Upkeep(pool, Settings()).look_after(due(campaign))
    assert await campaign_row(host, cancelled) == ("COMPLETED", 1, 0)
    assert await campaign_row(host, archived) == ("ARCHIVED", 1, 1)
    assert await campaign_row(host, uncounted) == ("COMPLETED", 1, 1)


@pytest.mark.usefixtures("heard")
async def test_refused_devices_wait_longer_each_time_and_starve_nobody(
    pool: Pool, host: Connection, choosy: Mosquitto
) -> None:
    campaign = await insert_campaign(host, 12, rollout_rate=2)
    others_sent_after: list[int] = []
    deadlines: dict[int, float] = {}
    async with ticking(pool, choosy.url, 0.1) as ticker:
        for number in range(1, 100):
            await asyncio.sleep(max(0.1, await ticker.tick(quietly=True)))
            found = await breakdown(host, campaign)
            if found == {"PENDING": 2, "DOWNLOADING": 10}:
                others_sent_after.append(number)
            row = await device_row(host, campaign, "dev-2")
            deadlines[row["refusals"]] = row["due_at"].timestamp()
            if row["refusals"] >= 5 and others_sent_after:
                break
    assert others_sent_after[0] <= 14, "five ticks for ten devices, and a few that the refused had"
    for device in REFUSED:
        row = await device_row(host, campaign, device)
        assert (row["status"], row["attempt"], row["sent_attempt"]) == ("PENDING", 1, 0)
    for number in (2, 3, 4, 5):
        # Refused again no sooner than the wait before was over, and then it waits twice as long.
        assert deadlines[number] - deadlines[number - 1] >= 0.1 * 2 ** (number - 1)


async def test_a_row_that_a_host_keeps_locked_holds_up_its_own_campaign_alone(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        connect(database) as second,
        devices(broker.url, succeeds) as fleet,
        worker(database, broker.url, tmp_path / "log"),
    ):
        kept = await insert_campaign(host, 4, rollout_rate=1, max_in_flight=1)
        async with second.transaction():
            await second.execute("SELECT FROM ota_campaigns WHERE id = $1 FOR UPDATE", kept)
            other = await insert_campaign(host, 24, tenant="south", rollout_rate=4)
            # Six ticks of 0.2 s; as many waits for the lock would take half a minute.
            await ends(host, other, tenant="south", timeout=20)
            assert await campaign_row(host, other, "south") == ("COMPLETED", 24, 0)
            assert len(fleet.of(kept)) <= 1
        await ends(host, kept)


async def test_sigterm_ends_a_worker_whose_table_is_locked(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with devices(mosquitto.url) as fleet:
        campaign = await insert_campaign(host, 5)
        async with connect(database) as second, worker(database, mosquitto.url, tmp_path / "first") as running:
            await eventually(lambda: len(fleet.of(campaign)) == 5, what="sent")
            async with second.transaction():
                await second.execute("LOCK TABLE ota_device_status")
                for command in fleet.of(campaign):
                    fleet.report(command.device, campaign, "SUCCESS")
                await fleet.delivered()
                await eventually(lambda: waits_for_a_lock(host), what="the reports wait")
                running.process.terminate()
                assert await asyncio.wait_for(running.process.wait(), 20) == 0, running.output()
        async with worker(database, mosquitto.url, tmp_path / "second"):
            await ends(host, campaign)
    assert await campaign_row(host, campaign) == ("COMPLETED", 5, 0)


async def waits_for_a_lock(host: Connection) -> bool:
    return bool(
        await host.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%MATERIALIZED%'"
        )
    )


async def test_nobody_waits_in_a_ring(database: str, host: Connection) -> None:  # noqa: C901  one blow a function
    names = [f"dev-{number}" for number in range(40)]
    campaigns = [await insert_campaign(host, names, abort_threshold=1.0, progress_timeout=0.05) for _ in range(2)]
    for campaign in campaigns:
        await sent_to(host, campaign, names)
    await host.execute("UPDATE ota_device_status SET attempt = 2")
    deadline = time.monotonic() + 4
    times = Times(0.05, 0.05, 1000)

    def some() -> list[Claimed]:
        return [Claimed(DeviceId(each), 2) for each in random.sample(names, 30)]

    async with create_pool(database, size=12) as pool, AsyncExitStack() as stack:
        upkeep = Upkeep(pool, Settings())
        lock = await stack.enter_async_context(listeners.acquire_slot(pool, 0))
        assert lock is not None
        await lock.announce()

        async def mark() -> None:
            async with tenant_transaction(pool, TENANT) as connection:
                await executions.mark_sent(connection, TENANT, random.choice(campaigns), some(), times)

        async def release() -> None:
            async with tenant_transaction(pool, TENANT) as connection:
                await executions.release(
                    connection,
                    TENANT,
                    random.choice(campaigns),
                    some(),
                    delay=0.01,
                    refusal=random.choice([None, Refusal.REJECTED]),
                )

        async def report() -> None:
            words = ["DOWNLOADING", "DOWNLOADING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"]
            everyone = [(device, campaign) for device in names for campaign in campaigns]
            batch = [
                said(device, campaign, random.choice(words), attempt=random.choice([None, 1, 2]))
                for device, campaign in random.sample(everyone, 60)
            ]
            await Ingest(pool, Settings()).take_in(batch)  # one of its own: one writes one batch at a time

        async def look_after() -> None:
            await upkeep.look_after(due(random.choice(campaigns)))

        async def again() -> None:
            await host.execute(
                "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 2, sent_attempt = 1,"
                " failed_attempt = 0, completed_at = NULL, due_at = now()"
                " WHERE (campaign_id, device_id) IN (SELECT campaign_id, device_id FROM ota_device_status"
                " ORDER BY campaign_id, device_id FOR UPDATE SKIP LOCKED)"
            )
            await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", random.choice(campaigns))

        async def end(listening: asyncio.Task[None]) -> None:
            await asyncio.sleep(deadline - time.monotonic())
            listening.cancel()

        async def hammer(blow: Any) -> None:
            while time.monotonic() < deadline:
                await blow()

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(lock.listen("so that deadlines run", lambda: None))
            group.create_task(end(listening))
            for blow in (mark, mark, release, release, report, report, report, look_after, look_after, again):
                group.create_task(hammer(blow))
    assert await host.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


def the_first_fails_once(command: Command) -> Sequence[bytes]:
    return (says("FAILED") if (command.device, command.attempt) == ("first", 1) else succeeds)(command)


async def test_a_failed_row_set_back_by_hand_is_sent_again(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"OTA_PROGRESS_TIMEOUT": "1"}
    async with (
        devices(broker.url, the_first_fails_once) as fleet,
        worker(database, broker.url, tmp_path / "log", **settings) as running,
    ):
        campaign = await insert_campaign(
            host, ["first", "second"], max_in_flight=1, abort_threshold=1.0, abort_min_completed=2
        )
        await eventually(lambda: has_failed(host, campaign, 1), what="the first has failed")
        await host.execute(
            "UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL, error_message = NULL"
            " WHERE device_id = 'first'"
        )
        await ends(host, campaign)
        assert [each.attempt for each in fleet.of(campaign) if each.device == "first"] == [1, 2]
        assert not events(running, "ota_campaign_error")
    assert await campaign_row(host, campaign) == ("COMPLETED", 2, 0)


async def has_failed(host: Connection, campaign: int, number: int) -> bool:
    return (await campaign_row(host, campaign))[2] == number


@pytest.mark.usefixtures("heard")
async def test_set_back_long_after_it_failed_a_device_has_time_to_answer(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 1)
    await sent_to(host, campaign, ["dev-1"], attempt=3)
    await host.execute(
        "UPDATE ota_device_status SET status = 'PENDING', due_at = NULL, failed_attempt = 3,"
        " failed_reason = 'overdue', started_at = now() - interval '3 days'"
    )
    async with ticking(pool, broker.url, 0.1) as ticker:
        await ticker.tick()
    row = await device_row(host, campaign, "dev-1")
    assert (row["status"], row["attempt"], row["sent_attempt"]) == ("DOWNLOADING", 4, 4)
    assert await host.fetchval("SELECT due_at > now() + interval '1 minute' FROM ota_device_status")


async def test_reports_are_applied_where_words_do_not_fit_and_rules_cannot_be_read(
    pool: Pool, host: Connection
) -> None:
    await host.execute("ALTER TABLE ota_device_status ALTER error_message TYPE varchar(12)")
    campaign = await insert_campaign(host, 4, abort_threshold=1.0, progress_timeout=float("nan"))
    await sent_to(host, campaign, ["dev-1", "dev-2", "dev-3"])
    await take_in(
        pool,
        [
            said("dev-1", campaign, "FAILED", error="x" * 500),
            said("dev-2", campaign, "FAILED", error="no space"),
            said("dev-3", campaign, "INSTALLING"),
        ],
    )
    assert (await device_row(host, campaign, "dev-1"))["error_message"].startswith("xxx")
    assert (await device_row(host, campaign, "dev-2"))["error_message"] == "no space"
    assert await breakdown(host, campaign) == {"FAILED": 2, "INSTALLING": 1, "PENDING": 1}
    await Upkeep(pool, Settings()).look_after(due(campaign))
    assert await campaign_row(host, campaign) == ("PAUSED", 0, 2)
    assert "progress_timeout" in await host.fetchval("SELECT status_reason FROM ota_campaigns")


async def test_the_engines_own_words_fit_a_narrow_column(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await host.execute("ALTER TABLE ota_device_status ALTER error_message TYPE varchar(12)")
    settings = {"OTA_PROGRESS_TIMEOUT": "0.3", "OTA_MAX_ATTEMPTS": "1"}
    async with devices(broker.url), worker(database, broker.url, tmp_path / "log", **settings):
        campaign = await insert_campaign(host, ["mute", "un/sendable", "mute-2", "mute-3"], rollout_rate=2)
        await ends(host, campaign, "ABORTED")
    assert (await device_row(host, campaign, "mute"))["error_message"].startswith("no report")


async def test_a_slot_whose_holder_froze_is_taken_over(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with (
        devices(mosquitto.url, succeeds) as fleet,
        worker(database, mosquitto.url, tmp_path / "first") as frozen,
        worker(database, mosquitto.url, tmp_path / "second", logs="ota_tick_start") as other,
    ):
        assert not listens(other)
        frozen.process.send_signal(signal.SIGSTOP)
        campaign = await insert_campaign(host, 10)
        await eventually(lambda: len(fleet.of(campaign)) == 10, timeout=10, what="the other sends meanwhile")
        await eventually(lambda: listens(other), timeout=25, what="taken over")
        await ends(host, campaign, timeout=10)
        frozen.process.send_signal(signal.SIGCONT)
        await ends(host, await insert_campaign(host, 10))
        assert len(events(other, "ota_status_listener_subscribed")) == 1, "and kept"


def listens(running: Running) -> bool:
    return bool(events(running, "ota_status_listener_subscribed"))


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_slot_is_free_soon_after_its_holder_fell_silent(
    in_transaction: bool, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "CONTINUOUS_SECONDS", 2.0)

    async def free() -> bool:
        async with listeners.acquire_slot(pool, 0) as lock:
            return lock is not None

    async with listeners.acquire_slot(pool, 0) as lock:
        assert lock is not None
        assert not await free()
        if in_transaction:
            await lock._connection.execute("BEGIN")
        await eventually(free, what="free again")


async def test_two_installations_on_one_broker_keep_their_reports(
    database: str, empty_database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await migrate(empty_database)
    slots_of_each = {"ROLLWAVE_LISTENER_SLOTS": "2"}
    async with (
        connect(empty_database) as other_host,
        devices(broker.url, succeeds) as fleet,
        worker(database, broker.url, tmp_path / "one", **slots_of_each) as one,
        worker(empty_database, broker.url, tmp_path / "two", **slots_of_each) as two,
    ):
        for each in (one, two):
            await eventually(lambda: len(events(each, "ota_status_listener_subscribed")) == 2, what="slots")  # noqa: B023
        first = await insert_campaign(host, 60, rollout_rate=20)
        second = await insert_campaign(other_host, 60, tenant="south", rollout_rate=20)
        await ends(host, first)
        await ends(other_host, second, tenant="south")
        assert await campaign_row(host, first) == ("COMPLETED", 60, 0)
        assert await campaign_row(other_host, second, "south") == ("COMPLETED", 60, 0)
        assert len(fleet.commands) == 120


@pytest.mark.usefixtures("heard")
async def test_a_clock_that_was_set_back_holds_nothing_up(pool: Pool, host: Connection, broker: EmbeddedBroker) -> None:
    campaign = await insert_campaign(host, 6, rollout_rate=2)
    async with ticking(pool, broker.url, 60) as ticker:
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 4}
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 4}, "one window lasts a tick"
        await host.execute("UPDATE ota_campaigns SET pace_opened_at = now() + interval '1 day'")
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 4, "PENDING": 2}
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 4, "PENDING": 2}, "and the pace is kept from then on"


async def test_what_a_clock_dated_before_it_was_set_back_is_not_waited_out(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 3, progress_timeout=5.0, abort_threshold=1.0, max_attempts=1)
    await sent_to(host, campaign, ["dev-1"])
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, due_at = now() + interval '1 day' WHERE device_id <> 'dev-3'"
    )
    await host.execute("UPDATE ota_device_status SET started_at = now() + interval '1 day' WHERE device_id = 'dev-1'")
    await host.execute(
        "UPDATE ota_campaigns SET reconciled_at = now() + interval '1 day', succeeded = 7,"
        " pending = 2, downloading = 1, installing = 0, skipped = 0"
    )
    async with listeners.acquire_slot(pool, 0) as lock:
        assert lock is not None
        await lock.announce()
        await lock.beat("topic")
        await host.execute("UPDATE rollwave_listener_slots SET coming_at = now() + interval '1 day'")
        async with ticking(pool, broker.url, 0.1) as ticker:
            await ticker.tick()
            assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 1}, "sent, though one seems to come"
            assert await campaign_row(host, campaign) == ("RUNNING", 0, 0), "reconciled at once"
            await eventually(lambda: ticked_until(ticker, host, campaign), what="the claimed one is sent, not later")
            await lock.beat("topic")
            await host.execute(
                "UPDATE rollwave_listener_slots SET listening_since = now() + interval '1 day',"
                " subscribed_at = now() + interval '1 day'"
            )
            await lock.beat("topic")
            since = await host.fetchrow(
                "SELECT listening_since < now(), subscribed_at < now() FROM rollwave_listener_slots"
            )
            assert since is not None
            assert tuple(since) == (True, True)
    row = await device_row(host, campaign, "dev-1")
    assert await host.fetchval(
        "SELECT $1 < now() + interval '6 seconds' AND $2 <= now()", row["due_at"], row["started_at"]
    )


@pytest.mark.usefixtures("heard")
async def test_a_device_without_time_left_is_sent_no_other_attempt(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 2, device_timeout=3600.0)
    await sent_to(host, campaign, ["dev-1", "dev-2"])
    await host.execute("UPDATE ota_device_status SET failed_attempt = 1, failed_reason = 'no_answer', due_at = now()")
    await host.execute("UPDATE ota_device_status SET started_at = now() - interval '2 hours' WHERE device_id = 'dev-1'")
    async with CommandSession(Broker.from_url(broker.url)) as publisher:
        await Dispatch(pool, publisher, Settings()).dispatch(due(campaign))
    assert [(await device_row(host, campaign, device))["attempt"] for device in ("dev-1", "dev-2")] == [1, 2]


async def ticked_until(ticker: Ticker, host: Connection, campaign: int) -> bool:
    await ticker.tick()
    return await breakdown(host, campaign) == {"DOWNLOADING": 3}


async def test_a_transaction_that_loses_its_connection_says_so(pool: Pool, host: Connection) -> None:
    async def sleep() -> None:
        async with tenant_transaction(pool, TENANT) as connection:
            await connection.execute("SELECT pg_sleep(60)")

    async def terminated() -> bool:
        found = await host.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database()"
        )
        return bool(found)

    sleeping = asyncio.create_task(sleep())
    await eventually(terminated, what="asleep")
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        await sleeping
    async with tenant_transaction(pool, TENANT) as connection:
        assert await connection.fetchval("SELECT 1") == 1
