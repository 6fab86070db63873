"""Places a campaign's devices by its policy document: counts them first, then gives each its wave, segment and position.

The statements are made from the parts in ``placing.sql``, since selectors and labels differ from one document to another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rollwave.domain.execution import WAVE_BITS
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.placing import Order, Placing, Survey
from rollwave.domain.policy.selector.model import TIME_ZONE
from rollwave.domain.policy.selector.text import parse
from rollwave.store import labels
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load
from rollwave.store.selector_sql import Fragment, compile_selector, label_order, label_text
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_sql = load("placing")

LAST_KEY = (1 << WAVE_BITS) - 1
"""The largest order key."""

BITS_BEHIND_RANK = 20
"""Bits of an order key after the rank of the value of the label that orders the queue."""

LAST_RANK = (1 << (WAVE_BITS - BITS_BEHIND_RANK)) - 1
"""The rank of devices without that label."""


@dataclass(frozen=True, slots=True)
class Source:
    """The devices to place: the members of a group, or (None) those that the campaign never sent to.

    ``device_type``: the type that the firmware is for; None: every type. ``labels``: where their labels come from.
    """

    tenant_id: str
    campaign_id: CampaignId
    group_id: str | None
    device_type: str | None
    labels: labels.Source

    @property
    def name(self) -> str:
        """The part of ``placing.sql`` that reads them."""
        return "unsent" if self.group_id is None else "members"


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


async def survey(connection: Connection, source: Source, placing: Placing, *, sent: Sequence[int] = ()) -> Survey:
    """Count the devices that a campaign has to place, and find where each wave ends. Reads all of them.

    Args:
        sent: the number of devices of each wave that keep their places, since they were sent to.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    arguments = source.tenant_id, source.campaign_id, source.group_id, source.device_type
    async with labels.reading_view():
        if placing.order is Order.LABEL:
            await _rank(connection, source, placing)
        parts = _Parts(placing, source, first_parameter=5)
        counted = parts.fill("survey", targets=parts.fill("targets"))
        row = await connection.fetchrow(counted, *arguments, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS)
        assert row is not None  # an aggregate without GROUP BY has one row
        kept = [*sent, *[0] * (len(placing.waves) - len(sent))]
        total = row["targets"] + sum(kept)
        sizes = placing.sizes(total)
        left = [None if size is None else max(0, size - kept[number]) for number, size in enumerate(sizes)]
        bounds = await _bounds(connection, source, placing, left)
    matched = tuple(
        None if wave.select is None else each + already
        for wave, each, already in zip(placing.waves, row["matched"], kept, strict=True)
    )
    return Survey(total, row["segments"], matched, bounds, sizes)


async def count_waves(connection: Connection, source: Source, placing: Placing, found: Survey) -> dict[int, int]:
    """The number of devices that each wave would have, by its number."""
    parts = _Parts(placing, source, first_parameter=6, bounds="$5")
    statement = parts.fill("count_waves", targets=parts.fill("targets"))
    async with labels.reading_view():
        rows = await connection.fetch(
            statement,
            *(source.tenant_id, source.campaign_id, source.group_id, source.device_type, list(found.bounds)),
            *parts.parameters,
            timeout=SCAN_TIMEOUT_SECONDS,
        )
    return {row["wave"]: row["devices"] for row in rows}


async def _rank(connection: Connection, source: Source, placing: Placing) -> None:
    """Number the values of the label that orders the queue."""
    await connection.execute(_sql["forget_ranks"], source.tenant_id, source.campaign_id)
    parts = _Parts(placing, source, first_parameter=4)
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
        parts = _Parts(placing, source, first_parameter=6)
        statement = parts.fill("bounds", targets=parts.fill("targets"))
        rows = await connection.fetch(statement, *arguments, ends, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS)
        keys: dict[int, int] = {row["number"]: row["key"] for row in rows}
        return (*(keys.get(end) if size else -1 for size, end in zip(left[:-1], ends, strict=True)), None)
    bounds: list[int | None] = []
    for number, size in enumerate(left):
        if not size:
            bounds.append(None if size is None else -1)
            continue
        parts = _Parts(placing, source, first_parameter=6)
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


async def move(
    connection: Connection, source: Source, placing: Placing, found: Survey, *, after: str, limit: int
) -> Batch:
    """Place those of the campaign's next ``limit`` devices that were never sent to. Needs the campaign's lock."""
    return await _place(connection, "move", source, placing, found, after=after, limit=limit, before=0)


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
) -> Batch:
    parts = _Parts(placing, source, first_parameter=10)
    filled = parts.fill(statement, placed=parts.fill("placed"), cells=_sql["cells"])
    async with labels.reading_view():
        row = await connection.fetchrow(
            filled,
            *(source.tenant_id, source.campaign_id, source.group_id, source.device_type, after, limit, before),
            *(list(found.bounds), list(found.sizes)),
            *parts.parameters,
        )
    assert row is not None  # an aggregate without GROUP BY has one row
    return Batch(*row)


class _Parts:
    """Makes statements from the parts that depend on a document. ``parameters``: their values, in order.

    A part takes its parameters when it is first used, so that a statement has no parameter that it does not use.
    """

    def __init__(self, placing: Placing, source: Source, *, first_parameter: int, bounds: str = "$8") -> None:
        """``bounds``: the parameter that has the order key of the last device of each wave."""
        self.parameters: list[str] = []
        self._bounds = bounds
        self._placing = placing
        self._source = source
        self._first = first_parameter
        self._made: dict[str, str] = {}
        self._fits = [None if each is None else parse(each) for each in placing.selects]

    def fill(self, name: str, **parts: str) -> str:
        """The statement ``name`` of ``placing.sql`` with its parts."""
        text = _sql[name]
        for part, sql in parts.items():
            text = text.replace("{" + part + "}", sql)
        for part, make in self._makers.items():
            if "{" + part + "}" in text:
                text = text.replace("{" + part + "}", self._of(part, make))
        return text

    def eligible(self, number: int, bounds: Sequence[int | None]) -> str:
        """The condition for devices that fit the wave ``number`` and are in none of those before it."""
        earlier = [
            f"NOT ({self._fit(each)}" + ("" if bound is None else f" AND l.key <= {int(bound)}") + ")"
            for each, bound in enumerate(bounds)
        ]
        return " AND ".join([self._fit(number), *earlier])

    @property
    def _makers(self) -> Mapping[str, Callable[[], str]]:
        waves = range(len(self._fits))
        return {
            "source": lambda: _sql[self._source.name],
            "labels": lambda: self._source.labels.of_all("$1"),
            "labels_of_batch": lambda: self._source.labels.of_ids("$1", "(SELECT array_agg(device_id) FROM batch)"),
            "key": self._key,
            "fits": lambda: "true" if None in self._fits else " OR ".join(self._fit(each) for each in waves),
            "segment": self._segment,
            "time_zone": lambda: "l.time_zone" if self._placing.zoned else "NULL::text",
            "wave": lambda: f"CASE {' '.join(self._case(each) for each in waves)} END",
            "rest": lambda: f"CASE WHEN {self._fit(waves[-1])} THEN {waves[-1]} END",
            "counts": lambda: ", ".join(f"count(*) FILTER (WHERE {self._fit(each)}) AS fits_{each}" for each in waves),
            "sums": lambda: ", ".join(f"COALESCE(sum(fits_{each}), 0)" for each in waves),
            "value": lambda: self._add(label_text(self._placing.order_by or "", self._next)),
            "order_of_value": lambda: self._add(label_order(self._placing.order_by or "", self._next)),
        }

    @property
    def _next(self) -> int:
        return self._first + len(self.parameters)

    def _of(self, part: str, make: Callable[[], str]) -> str:
        if part not in self._made:
            self._made[part] = make()
        return self._made[part]

    def _add(self, fragment: Fragment) -> str:
        self.parameters += fragment.parameters
        return fragment.sql

    def _fit(self, number: int) -> str:
        """The condition of a wave's selector."""
        of = self._fits[number]
        if of is None:
            return "true"
        return self._of(f"fits {number}", lambda: f"({self._add(compile_selector(of, self._next))})")

    def _case(self, number: int) -> str:
        bound = f"COALESCE(({self._bounds}::bigint[])[{number + 1}], {LAST_KEY})"
        return f"WHEN {self._fit(number)} AND l.key <= {bound} THEN {number}"

    def _segment(self) -> str:
        """The labels of the segment, as jsonb."""
        keys = self._placing.labels
        if self._placing.zoned and TIME_ZONE not in keys:
            keys = (*keys, TIME_ZONE)
        if not keys:
            return "'{}'::jsonb"
        pairs = []
        for key in keys:
            name = self._add(Fragment(f"${self._next}::text", (key,)))
            pairs.append(f"{name}, {self._add(label_text(key, self._next))}")
        return f"jsonb_build_object({', '.join(pairs)})"

    def _key(self) -> str:
        """The order key of a device: a number of 44 bits."""
        match self._placing.order:
            case Order.HASH:
                return _hash(WAVE_BITS)
            case Order.ID:
                return f"(t.ordinal & {LAST_KEY})"
            case Order.LABEL:
                ranks = "ota_campaign_ranks r WHERE r.tenant_id = $1 AND r.campaign_id = $2"
                value = self._of("value", self._makers["value"])
                rank = f"LEAST(COALESCE((SELECT r.rank FROM {ranks} AND r.value = {value}), {LAST_RANK}), {LAST_RANK})"
                # Devices with the same value have different keys, since a wave ends at a key.
                return f"({rank} << {BITS_BEHIND_RANK}) + {_hash(BITS_BEHIND_RANK)}"


def _hash(bits: int) -> str:
    """A number of so many bits, which are a multiple of 4, from the ids of campaign and device."""
    return f"('x' || substr(md5($2::bigint || ':' || t.device_id), 1, {bits // 4}))::bit({bits})::bigint"


async def begin(connection: Connection, campaign: Campaign) -> None:
    """Begin to place all devices never sent to anew. Until that is done, nothing is sent. Needs the campaign's lock."""
    await connection.execute(_sql["begin"], campaign.tenant_id, campaign.id)


async def store_survey(
    connection: Connection, tenant_id: str, campaign_id: CampaignId, found: Survey, *, revision: int | None
) -> None:
    """Store the survey with the campaign. Not applied: another worker has stored one, or the policy was edited since."""
    survey = json.dumps(found.to_json())
    await connection.execute(_sql["surveyed"], tenant_id, campaign_id, survey, revision)


async def store_fault(connection: Connection, campaign: Campaign, reason: str) -> bool:
    """Store why the devices cannot be placed. False: the same is stored already, or all are placed.

    Needs the campaign's lock.
    """
    return await connection.fetchval(_sql["store_fault"], campaign.tenant_id, campaign.id, reason) is not None


async def advance(connection: Connection, campaign: Campaign, batch: Batch, *, last: bool) -> int | None:
    """Record that a batch was placed anew. Returns the campaign's devices. Needs the campaign's lock."""
    total: int | None = await connection.fetchval(
        _sql["advance"], campaign.tenant_id, campaign.id, batch.devices, batch.up_to, last, batch.skipped
    )
    return total


async def finish(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> None:
    """Record that all devices are placed. Needs the campaign's lock."""
    await connection.execute(_sql["finish"], tenant_id, campaign_id)
    await connection.execute(_sql["forget_ranks"], tenant_id, campaign_id)


async def any_unplaced(connection: Connection, campaign: Campaign) -> bool:
    """Whether other SQL has inserted devices that are not placed yet."""
    return await connection.fetchval(_sql["any_unplaced"], campaign.tenant_id, campaign.id) is not None
