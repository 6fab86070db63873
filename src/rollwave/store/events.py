"""Events of campaigns: appended in the transaction of the change that they tell, and read in the order of their ids.

An event gets its id while the campaign's row is locked, so the events of one campaign are committed in the order of
their ids: a reader that asks for what comes after the last id it saw misses none (ADR 23). Events of two campaigns may
be committed in another order; :func:`read`, which reads all of a tenant, waits for those that come late (ADR 33).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rollwave.domain import events
from rollwave.domain.events import DeviceFailure, Entry, Event
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import moment
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("events")

WAIT_SECONDS, POLL_SECONDS = 1.0, 0.01
"""How long one call of :func:`read` waits for transactions that may still commit an event, and how often it looks."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in history. Ids of a tenant's events rise with time, with gaps; ``at`` is the database's time in UTC."""

    id: int
    at: datetime
    campaign_id: int
    actor: str
    event: Event


async def append(connection: Connection, tenant_id: str, campaign_id: int, event: Event, *, actor: str) -> None:
    """Write one event in this transaction. Locks the campaign's row."""
    await _append(connection, tenant_id, [Entry(campaign_id, event, actor)])


async def append_failed_attempts(
    connection: Connection, tenant_id: str, failures: Sequence[Entry[DeviceFailure]]
) -> None:
    """Write one event for each failed attempt, or for what is given up after one, in this transaction.

    Locks the rows of the campaigns. A transaction that locks campaigns besides locks them all before this, by id.

    Raises:
        ValueRefused: PostgreSQL does not take a value that a device sent.
    """
    if failures:
        with refusing_values():
            await _append(connection, tenant_id, failures)


async def _append(connection: Connection, tenant_id: str, entries: Sequence[Entry[Event]]) -> None:
    columns = (
        [each.campaign_id for each in entries],
        [each.event.device_id for each in entries],
        [each.event.word for each in entries],
        [each.actor for each in entries],
        # Not escaped: PostgreSQL reads an escape only if the database can hold the character.
        json.dumps([each.event.to_detail() for each in entries], ensure_ascii=False),
    )
    await connection.execute(_sql["append"], tenant_id, *columns)


async def read(pool: Pool, tenant_id: str, *, after: int, limit: int) -> list[Recorded]:
    """The events of all of a tenant's campaigns after the event ``after`` (0: from the first), in the order of ids.

    Whoever goes on after the last one skips none, however late its transaction commits: what was read is only returned
    once no transaction is left that may still commit one with a lower id. Empty where there is none, or where such a
    transaction takes longer than ``WAIT_SECONDS``.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        up_to = await connection.fetchval(_sql["end_of_page"], tenant_id, after, limit)
        # In this order: the transaction of a lower id has held its lock since before this page could be seen.
        if up_to is None or not await _settled(connection):
            return []
        rows = await connection.fetch(_sql["page"], tenant_id, after, up_to, limit)
    return [
        Recorded(
            row["id"],
            moment(row["at"]),
            row["campaign_id"],
            row["actor"],
            events.read(row["event"], _detail(row["detail"]), row["device_id"]),
        )
        for row in rows
    ]


def _detail(text: str | None) -> object:
    """What is stored of an event. Somebody may have written a string in place of an object."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


async def _settled(connection: Connection) -> bool:
    """Wait until every transaction has ended that has written an event so far. False: one takes too long."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    writers = [row[0] for row in await connection.fetch(_sql["writers"])]
    while writers:
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(POLL_SECONDS)
        still = {row[0] for row in await connection.fetch(_sql["writers"])}
        writers = [each for each in writers if each in still]
    return True


async def position(connection: Connection, tenant_id: str, consumer: str) -> int:
    """The id of the last event of a tenant that a consumer has dealt with; 0: none yet."""
    last: int | None = await connection.fetchval(_sql["position"], tenant_id, consumer)
    return last or 0


async def advance(connection: Connection, tenant_id: str, consumer: str, event_id: int) -> None:
    """Remember that a consumer has dealt with every event up to this one. It never goes back.

    In the transaction of what the consumer wrote, each event has its effect exactly once; in one of its own after an
    effect elsewhere, at least once.
    """
    await connection.execute(_sql["advance"], tenant_id, consumer, event_id)
