"""A listener slot's lock, on a pooled connection that nobody resets."""

from __future__ import annotations

from rollwave.store import listeners
from rollwave.store.database import Pool


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
