"""Pages of the devices that a selector matches."""

from __future__ import annotations

import time
from dataclasses import dataclass

import asyncpg

from rollwave.domain.policy.selector.model import VERSION, AllOf, Compare, Operator
from rollwave.domain.policy.selector.text import UnreadableSelector, parse
from rollwave.errors import Conflict, InvalidInput
from rollwave.store import devices, labels
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import with_moments
from rollwave.store.page import Page
from rollwave.store.selector_sql import Fragment, compile_selector

TIMEOUT_SECONDS = 5.0
"""Maximum time for finding and counting the devices of a selector."""

_FIELD = "select"
_COLUMNS = """l.device_id, l.device_type, l.labels::text AS attributes, l.time_zone, l.version,
    EXTRACT(epoch FROM l.last_seen)::float8 AS last_seen_at, NULL::float8 AS created_at"""


async def find(
    pool: Pool,
    tenant_id: str,
    selector: str | None,
    *,
    device_type: str | None,
    version: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page:
    """A page of devices that match, ordered by id. None: devices of every type, of every version.

    Raises:
        InvalidInput: the selector cannot be read, or its devices cannot be found in ``TIMEOUT_SECONDS``.
        Conflict: the host's view of its devices cannot be used.
    """
    runs = () if version is None else (Compare(VERSION, Operator.EQ, version),)
    try:
        parts = (*(() if selector is None else (parse(selector),)), *runs)
        matches = compile_selector(parts[0] if len(parts) == 1 else AllOf(parts), first_parameter=3)
    except UnreadableSelector as error:
        raise InvalidInput(error.fault, hint=error.hint, field=_FIELD) from error
    chosen = _Chosen(matches, device_type, cursor)
    try:
        async with tenant_transaction(pool, tenant_id, timeout=TIMEOUT_SECONDS) as connection:
            source = await labels.source(connection)
            if not source.of_host:
                return await _page(connection, tenant_id, source, chosen, limit)
            async with labels.reading_view():
                return await _page(connection, tenant_id, source, chosen, limit)
    except labels.LabelsUnavailable as error:
        raise Conflict(str(error), hint="Correct the view; `rollwave doctor` checks it.") from error


@dataclass(frozen=True, slots=True)
class _Chosen:
    matches: Fragment
    device_type: str | None
    after: str | None


async def _page(connection: Connection, tenant_id: str, source: labels.Source, chosen: _Chosen, limit: int) -> Page:
    began = time.monotonic()
    after = f"${3 + len(chosen.matches.parameters)}"
    rows_of = source.of_all("$1")
    matching = f"FROM {rows_of} AS l WHERE ($2::text IS NULL OR l.device_type = $2) AND ({chosen.matches.sql})"
    try:
        rows = await connection.fetch(
            f"SELECT {_COLUMNS} {matching} AND ({after}::text IS NULL OR l.device_id > {after})"
            f" ORDER BY l.device_id LIMIT {limit + 1}",
            *(tenant_id, chosen.device_type, *chosen.matches.parameters, chosen.after),
        )
        if chosen.after is None and len(rows) <= limit:
            total = len(rows)  # the slow case, in which all devices were read for a few: they are not read again
        else:
            left = max(0.001, TIMEOUT_SECONDS - (time.monotonic() - began))
            await connection.execute(f"SET LOCAL statement_timeout = {int(left * 1000)}")
            total = await connection.fetchval(
                f"SELECT count(*) {matching}", tenant_id, chosen.device_type, *chosen.matches.parameters
            )
    except asyncpg.QueryCanceledError as error:
        raise InvalidInput(
            f"too broad: its devices were not found in {TIMEOUT_SECONDS:g} seconds",
            hint="Add an equality that few devices match.",
            field=_FIELD,
        ) from error
    found = [devices.device(with_moments(row)) for row in rows[:limit]]
    next_cursor = found[-1]["device_id"] if len(rows) > limit else None
    if not source.of_host:
        found = await devices.devices_of(connection, tenant_id, [row["device_id"] for row in found])
    return Page(found, total, next_cursor)
