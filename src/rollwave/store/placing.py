"""Places a campaign's devices by its policy document: counts them, then gives each its wave, segment and position.

The statements are made for each document by :mod:`rollwave.store.placing_statements`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate

from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.placing import Order, Placing, Survey
from rollwave.store import labels
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.placing_statements import Parts, Source
from rollwave.store.queries import load
from rollwave.store.segment_quarantine import SegmentChanges
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_sql = load("placing")


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of placing one batch: numbers of devices, and of the campaign's ``segments`` so far.

    ``devices``: rows that were read; ``up_to``: the last of them (None: there was none).
    """

    devices: int
    up_to: str | None
    pending: int
    skipped: int
    segments: int
    changes: SegmentChanges


@dataclass(frozen=True, slots=True)
class Locked:
    """Devices in flight or failed, which the transaction has locked.

    ``scanned``: rows that were read; ``up_to``: the last of them (None: there was none).
    """

    scanned: int
    up_to: str | None
    devices: Sequence[str]


@asynccontextmanager
async def _reading(source: Source) -> AsyncIterator[None]:
    """Name the host's view in errors of statements that read it."""
    if not source.labels.of_host:
        yield
        return
    async with labels.reading_view():
        yield


async def survey(connection: Connection, source: Source, placing: Placing, *, sent: Sequence[int] = ()) -> Survey:
    """Count the devices that a campaign has to place, and find where each wave ends. Reads all of them.

    Args:
        sent: the number of devices of each wave that keep their places, since they were sent to.

    ``matched`` counts these too: a wave whose devices went with an earlier one passes.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    arguments = source.tenant_id, source.campaign_id, source.group_id, source.device_type
    every = source.group_id is None and (placing.splits or any(placing.selects))
    async with _reading(source):
        await _check(connection, source, placing, every=every)
        if placing.order is Order.LABEL:
            await _rank(connection, source, placing)
        parts = Parts(placing, source, first_parameter=5)
        counted = parts.fill(
            "survey", targets=parts.fill("targets", **({"source": _sql["sent_and_unsent"]} if every else {}))
        )
        row = await connection.fetchrow(counted, *arguments, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS)
        assert row is not None  # an aggregate without GROUP BY has one row
        kept = [*sent, *[0] * (len(placing.waves) - len(sent))]
        total = row["targets"] + sum(kept)
        sizes = placing.sizes(total)
        left = [None if size is None else max(0, size - kept[number]) for number, size in enumerate(sizes)]
        bounds = await _bounds(connection, source, placing, left)
    matched = tuple(
        None if wave.select is None else max(each, already)
        for wave, each, already in zip(placing.waves, row["matched"], kept, strict=True)
    )
    return Survey(total, row["segments"], matched, bounds, sizes)


async def _check(connection: Connection, source: Source, placing: Placing, *, every: bool) -> None:
    """Refuse a host's view with faulty rows of the devices to place, with those that were sent to if ``every``."""
    if not source.labels.of_host:
        return
    parts = Parts(placing, source, first_parameter=5)
    statement = parts.fill("check", **({"source": _sql["sent_and_unsent"]} if every else {}))
    arguments = source.tenant_id, source.campaign_id, source.group_id, source.device_type
    row = await connection.fetchrow(statement, *arguments, timeout=SCAN_TIMEOUT_SECONDS)
    assert row is not None  # a SELECT without FROM has one row
    labels.require_right(row["twice"], row["zones"])


async def count_waves(connection: Connection, source: Source, placing: Placing, found: Survey) -> dict[int, int]:
    """The number of devices that each wave would have, by its number."""
    parts = Parts(placing, source, first_parameter=6, bounds="$5")
    statement = parts.fill("count_waves", targets=parts.fill("targets"))
    async with _reading(source):
        rows = await connection.fetch(
            statement,
            *(source.tenant_id, source.campaign_id, source.group_id, source.device_type, list(found.bounds)),
            *parts.parameters,
            timeout=SCAN_TIMEOUT_SECONDS,
        )
    return {row["wave"]: row["devices"] for row in rows}


async def forget_ranks(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> None:
    """Forget the numbers of the label's values, by which devices were placed."""
    await connection.execute(_sql["forget_ranks"], tenant_id, campaign_id)


async def _rank(connection: Connection, source: Source, placing: Placing) -> None:
    """Number the values of the label that orders the queue."""
    await forget_ranks(connection, source.tenant_id, source.campaign_id)
    parts = Parts(placing, source, first_parameter=4)
    statement = parts.fill("rank")
    arguments = source.tenant_id, source.campaign_id, source.group_id
    await connection.execute(statement, *arguments, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS)


async def _bounds(
    connection: Connection, source: Source, placing: Placing, left: Sequence[int | None]
) -> tuple[int | None, ...]:
    """The order key up to which each wave takes devices, if ``left`` of its places are free (None: it takes all)."""
    arguments = source.tenant_id, source.campaign_id, source.group_id, source.device_type
    if all(each.select is None for each in placing.waves):
        ends = list(accumulate(size or 0 for size in left[:-1]))
        if not ends:
            return (None,)
        parts = Parts(placing, source, first_parameter=6)
        statement = parts.fill("bounds", targets=parts.fill("targets"))
        rows = await connection.fetch(statement, *arguments, ends, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS)
        keys: dict[int, int] = {row["number"]: row["key"] for row in rows}
        return (*(keys.get(end) if size else -1 for size, end in zip(left[:-1], ends, strict=True)), None)
    bounds: list[int | None] = []
    for number, size in enumerate(left):
        if not size:
            bounds.append(None if size is None else -1)
            continue
        parts = Parts(placing, source, first_parameter=6)
        targets = parts.fill("targets")
        statement = parts.fill("bound", targets=targets, eligible=parts.eligible(number, bounds))
        key = await connection.fetchval(statement, *arguments, size, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS)
        bounds.append(key)
    return tuple(bounds)


async def insert(
    connection: Connection, source: Source, placing: Placing, found: Survey, *, after: str, limit: int, before: int
) -> Batch:
    """Target and place the next ``limit`` members of the group, after the device ``after`` (empty: from the first).

    ``before``: number of members before them. Needs the campaign's lock.
    """
    return await _place(connection, "insert", source, placing, found, after=after, limit=limit, before=before)


async def lock_sent(connection: Connection, campaign: Campaign, *, after: str, limit: int) -> Locked:
    """Lock those of the campaign's next ``limit`` devices that are in flight or failed: they may be sent to again.

    The caller locks the campaign after this, as a transaction that applies reports does.
    """
    row = await connection.fetchrow(_sql["lock_sent"], campaign.tenant_id, campaign.id, after, limit)
    assert row is not None  # a SELECT without FROM has one row
    return Locked(*row)


async def move_sent(
    connection: Connection, source: Source, placing: Placing, devices: Sequence[str]
) -> tuple[int, SegmentChanges]:
    """Give devices that were sent to, and that the transaction has locked, the segments and budgets of their labels.

    Returns the number of the campaign's segments, and their changes. Needs the campaign's lock.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used. The transaction must not be committed.
    """
    parts = Parts(placing, source, first_parameter=4)
    statement = parts.fill("move_sent", segments=_sql["segments"], from_quarantine=_sql["from_quarantine"])
    async with _reading(source):
        row = await connection.fetchrow(statement, source.tenant_id, source.campaign_id, devices, *parts.parameters)
    assert row is not None  # a SELECT without FROM has one row
    labels.require_right(row["twice"], row["zones"])
    return row["segments"], SegmentChanges.read(row["new_segments"], row["from_quarantine"])


async def move(
    connection: Connection, source: Source, placing: Placing, found: Survey, *, after: str, limit: int
) -> Batch:
    """Place those of the campaign's next ``limit`` devices that were never sent to. Needs the campaign's lock."""
    return await _place(connection, "move", source, placing, found, after=after, limit=limit, before=0)


async def place_inserted(
    connection: Connection, source: Source, placing: Placing, found: Survey, *, in_flight: bool, limit: int
) -> Batch:
    """Place up to ``limit`` devices that have no place since all were placed. Needs the campaign's lock.

    ``found``: the ends and sizes of the waves. ``in_flight``: those in flight, which then count for budgets; otherwise
    those that other SQL has inserted and that wait. Budgets hold none of these yet: the next claim asks them.
    """
    unplaced = _sql["unplaced_in_flight" if in_flight else "unplaced_waiting"]
    given = {"after": "", "held_for": "NULL::int", "unplaced": unplaced}
    return await _place(connection, "place_inserted", source, placing, found, limit=limit, before=0, **given)


async def _place(
    connection: Connection,
    statement: str,
    source: Source,
    placing: Placing,
    found: Survey,
    *,
    after: str,
    limit: int,
    before: int,
    **given: str,
) -> Batch:
    """``given``: parts of the statement in place of those that the document decides.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used. The transaction must not be committed.
    """
    parts = Parts(placing, source, first_parameter=10)
    placed = parts.fill("placed", segments=_sql["segments"], **given)
    common = {name: _sql[name] for name in ("places", "cells", "from_quarantine")}
    filled = parts.fill(statement, placed="{host_labels}" + placed, **common, **given)
    async with _reading(source):
        row = await connection.fetchrow(
            filled,
            *(source.tenant_id, source.campaign_id, source.group_id, source.device_type, after, limit, before),
            *(list(found.bounds), list(found.sizes)),
            *parts.parameters,
        )
    assert row is not None  # an aggregate without GROUP BY has one row
    labels.require_right(row["twice"], row["zones"])
    changes = SegmentChanges.read(row["new_segments"], row["from_quarantine"])
    return Batch(row["devices"], row["up_to"], row["pending"], row["skipped"], row["segments"], changes)
