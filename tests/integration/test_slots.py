"""A slot's lock: its connection is returned unchanged, and a slot of a frozen worker goes to another worker."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from rollwave.store import listeners
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    always_succeeds,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto
from tests.support import Running, eventually


async def test_a_connection_that_held_a_slot_is_returned_unchanged(pool: Pool) -> None:
    async with listeners.acquire_slot(pool, 0) as lock, listeners.acquire_slot(pool, 0) as second:
        assert lock is not None
        assert second is None
        assert not await is_free(pool)
    assert await is_free(pool)
    async with pool.acquire() as one, pool.acquire() as other:
        assert {await each.fetchval("SHOW idle_session_timeout") for each in (one, other)} == {"0"}


async def is_free(pool: Pool) -> bool:
    locks: int = await pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    return locks == 0


async def test_the_slot_of_a_frozen_worker_is_taken_over(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(database, mosquitto.url, tmp_path / "first") as frozen,
        worker(database, mosquitto.url, tmp_path / "second", logs="ota_tick_start") as other,
    ):
        assert not listens(other)
        frozen.process.send_signal(signal.SIGSTOP)
        campaign = await insert_campaign(host, 10)
        await eventually(lambda: len(fleet.commands_of(campaign)) == 10, timeout=10, what="the other sends meanwhile")
        await eventually(lambda: listens(other), timeout=25, what="taken over")
        await wait_until_ended(host, campaign, timeout=10)
        frozen.process.send_signal(signal.SIGCONT)
        await wait_until_ended(host, await insert_campaign(host, 10))
        assert len(events(other, "ota_status_listener_subscribed")) == 1, "and it keeps the slot"


def listens(running: Running) -> bool:
    return bool(events(running, "ota_status_listener_subscribed"))


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_slot_is_free_soon_after_its_holder_became_idle(
    in_transaction: bool, database: str, pool: Pool
) -> None:
    holders: list[Any] = []

    async def remember(connection: Any) -> None:
        holders.append(connection)

    async def free() -> bool:
        async with listeners.acquire_slot(pool, 0) as lock:
            return lock is not None

    async with (
        asyncpg.create_pool(database, min_size=0, max_size=1, init=remember) as holders_pool,
        listeners.acquire_slot(holders_pool, 0, idle_seconds=2) as lock,
    ):
        assert lock is not None
        assert not await free()
        if in_transaction:
            await holders[0].execute("BEGIN")
        await eventually(free, what="free again")


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection
