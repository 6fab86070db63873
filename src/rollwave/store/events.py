"""Events of campaigns: appended in the transaction of the change, and read in the order of their ids.

An event gets its id while the campaign's row is locked, so the events of one campaign are committed in the order of
their ids, and a reader that asks for events after the last id it saw misses none (ADR 23). Events of two campaigns may
be committed in another order: :func:`read`, which reads all events of a tenant, waits for late ones (ADR 33).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from rollwave.domain import events
from rollwave.domain.event import Event
from rollwave.domain.events import DeviceFailure, Entry
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import moment
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("events")

WAIT_SECONDS, POLL_SECONDS = 1.0, 0.01
"""Seconds for which :func:`read` waits for transactions that may still commit an event, and between two checks."""


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


async def append_all(connection: Connection, tenant_id: str, entries: Sequence[Entry[Event]]) -> None:
    """Write events in this transaction, in this order. Locks the rows of their campaigns."""
    await _append(connection, tenant_id, entries)


async def append_failed_attempts(
    connection: Connection, tenant_id: str, failures: Sequence[Entry[DeviceFailure]]
) -> None:
    """Write one event for each failed attempt, or for each retry that is not made, in this transaction.

    Locks the rows of the campaigns. If the transaction locks further campaigns, it must lock all of them before this,
    ordered by id.

    Raises:
        ValueRefused: PostgreSQL refuses a value that a device sent.
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
        # JSON without escapes: PostgreSQL reads an escape only if the database's encoding has the character.
        json.dumps([each.event.to_detail() for each in entries], ensure_ascii=False),
    )
    await connection.execute(_sql["append"], tenant_id, *columns)


async def read(pool: Pool, tenant_id: str, *, after: int, limit: int) -> list[Recorded]:
    """Read the events of all campaigns of a tenant after the event ``after`` (0: from the first), ordered by id.

    A reader that continues after the last event skips none: events are returned only when no transaction is left that
    may still commit one with a lower id. Empty: there is no event, or such a transaction takes longer than
    ``WAIT_SECONDS``.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        up_to = await connection.fetchval(_sql["end_of_page"], tenant_id, after, limit)
        # The order matters: a transaction with a lower id has held its lock since before this page became visible.
        if up_to is None or not await _settled(connection):
            return []
        rows = await connection.fetch(_sql["page"], tenant_id, after, up_to, limit)
    return [recorded(row, row["campaign_id"]) for row in rows]


def recorded(row: asyncpg.Record, campaign_id: int) -> Recorded:
    """Read an event of a campaign from a row of history, whose time is in epoch seconds and whose detail is text."""
    event = events.read(row["event"], _detail(row["detail"]), row["device_id"])
    return Recorded(row["id"], moment(row["at"]), campaign_id, row["actor"], event)


def _detail(text: str | None) -> object:
    """The stored detail of an event. Other SQL may have written a string instead of an object."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


async def _settled(connection: Connection) -> bool:
    """Wait until every transaction that has written an event so far has ended. False: one takes too long."""
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
    """The id of the last event of a tenant that a consumer has processed; 0: none yet."""
    last: int | None = await connection.fetchval(_sql["position"], tenant_id, consumer)
    return last or 0


async def advance(connection: Connection, tenant_id: str, consumer: str, event_id: int) -> None:
    """Record that a consumer has processed every event up to this one. The position never moves back.

    In the same transaction as the consumer's writes, each event takes effect exactly once. In a separate transaction
    after an effect elsewhere, at least once.
    """
    await connection.execute(_sql["advance"], tenant_id, consumer, event_id)
