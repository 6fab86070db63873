"""A listener slot's lock, on a pooled connection that nobody resets."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from rollwave.store import slots
from rollwave.store.database import Connection, Pool
from tests.support import eventually


async def test_a_lock_whose_answer_came_too_late_is_not_kept(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def then_stands_still(connection: Connection) -> bool:
        process = connection.get_server_pid()
        os.kill(process, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(1.0, os.kill, process, signal.SIGCONT)
        return True

    with monkeypatch.context() as patched:
        patched.setattr(slots, "is_direct", then_stands_still)
        patched.setattr(slots, "_PATIENCE", 0.5)
        with pytest.raises(TimeoutError):
            async with slots.hold(pool, 0):
                pass
    await eventually(lambda: is_free(pool), what="free")


async def test_a_session_that_held_a_slot_is_as_it_was_before(pool: Pool) -> None:
    async with slots.hold(pool, 0) as lock, slots.hold(pool, 0) as second:
        assert lock is not None
        assert second is None
        assert not await is_free(pool)
    assert await is_free(pool)
    async with pool.acquire() as one, pool.acquire() as other:
        assert {await each.fetchval("SHOW idle_session_timeout") for each in (one, other)} == {"0"}


async def is_free(pool: Pool) -> bool:
    locks: int = await pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    return locks == 0
