"""Places a campaign's devices by its policy document: counts them first, then gives each its wave, segment and position.

The statements are made from the parts in ``placing.sql``, since selectors and labels differ from one document to another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.execution import WAVE_BITS
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy import selector
from rollwave.domain.policy.placing import Order, Placing, Survey
from rollwave.store import labels
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.labels import Fragment
from rollwave.store.queries import load
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_sql = load("placing")

LAST_KEY = (1 << WAVE_BITS) - 1
"""The order key of devices without the label that orders the queue."""

_RANK = "(SELECT r.rank FROM ota_campaign_ranks r WHERE r.tenant_id = $1 AND r.campaign_id = $2 AND r.value = {value})"
HASH_KEY = "('x' || substr(md5($2::bigint || ':' || t.device_id), 1, 11))::bit(44)::bigint"


@dataclass(frozen=True, slots=True)
class Source:
    """The devices to place: the members of a group, or (None) those that the campaign never sent to.

    ``device_type``: the type that the firmware is for; None: every type.
    """

    tenant_id: str
    campaign_id: CampaignId
    group_id: str | None
    device_type: str | None

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
        InvalidInput: a selector is too broad, or a label cannot be read.
    """
    parts = _Parts(placing, first_parameter=5)
    arguments = source.tenant_id, source.campaign_id, source.group_id, source.device_type
    if placing.order is Order.LABEL:
        await connection.execute(_sql["forget_ranks"], source.tenant_id, source.campaign_id)
        rank = parts.fill("rank", source=_sql[source.name])
        await connection.execute(rank, *arguments[: 2 if source.group_id is None else 3], timeout=SCAN_TIMEOUT_SECONDS)
    targets = parts.fill("targets", source=_sql[source.name])
    row = await connection.fetchrow(
        parts.fill("survey", targets=targets), *arguments, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS
    )
    assert row is not None  # an aggregate without GROUP BY has one row
    kept = list(sent) + [0] * (len(placing.waves) - len(sent))
    total = row["targets"] + sum(kept)
    sizes = placing.sizes(total)
    left = [None if size is None else max(0, size - kept[number]) for number, size in enumerate(sizes)]
    matched = tuple(
        each + kept[number] if wave.select is not None else None
        for number, (wave, each) in enumerate(zip(placing.waves, row["matched"], strict=True))
    )
    bounds = await _bounds(connection, source, placing, left)
    return Survey(total, row["segments"], matched, bounds, sizes)


async def _bounds(
    connection: Connection, source: Source, placing: Placing, left: Sequence[int | None]
) -> tuple[int | None, ...]:
    """The order key up to which each wave takes devices, if ``left`` of its places are free (None: it takes all)."""
    arguments = source.tenant_id, source.campaign_id, source.group_id, source.device_type
    if all(each.select is None for each in placing.waves):
        parts = _Parts(placing, first_parameter=6)
        ends: list[int] = []
        for size in left[:-1]:
            ends.append((ends[-1] if ends else 0) + (size or 0))
        bounds_sql = parts.fill("bounds", targets=parts.fill("targets", source=_sql[source.name]))
        rows = await connection.fetch(bounds_sql, *arguments, ends, timeout=SCAN_TIMEOUT_SECONDS) if ends else []
        keys = {row["number"]: row["key"] for row in rows}
        return (*((-1 if not size else keys.get(end)) for size, end in zip(left, ends, strict=False)), None)
    bounds: list[int | None] = []
    for number, size in enumerate(left):
        if not size:
            bounds.append(None if size is None else -1)
            continue
        parts = _Parts(placing, first_parameter=6)
        eligible = parts.eligible(number, bounds)
        statement = parts.fill("bound", targets=parts.fill("targets", source=_sql[source.name]), eligible=eligible)
        bounds.append(
            await connection.fetchval(statement, *arguments, size, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS)
        )
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
    parts = _Parts(placing, first_parameter=10)
    row = await connection.fetchrow(
        parts.fill(statement, placed=parts.fill("placed"), cells=_sql["cells"]),
        *(source.tenant_id, source.campaign_id, source.group_id, source.device_type, after, limit, before),
        *(list(found.bounds), list(found.sizes)),
        *parts.parameters,
    )
    assert row is not None  # an aggregate without GROUP BY has one row
    return Batch(*row)


class _Parts:
    """The parts of the statements that depend on a document. ``parameters``: the values of its selectors, in order."""

    def __init__(self, placing: Placing, *, first_parameter: int) -> None:
        self._placing = placing
        self._parts: dict[str, str] = {}
        self.parameters: list[object] = []
        self._fits: list[str | None] = []
        for each in placing.selects:
            fragment = self._selector(each, first_parameter + len(self.parameters))
            self._fits.append(None if fragment is None else f"({fragment.sql})")
            self.parameters += () if fragment is None else fragment.parameters
        every = any(each is None for each in self._fits)
        last = len(self._fits) - 1
        keys = (*placing.labels, *(("time_zone",) if placing.zoned and "time_zone" not in placing.labels else ()))
        pairs = ", ".join(f"{labels.literal(key)}, {labels.json_value(key)}" for key in keys)
        self._parts = {
            "labels_of": labels.RELATION,
            "key": _key(placing),
            "fits": "true" if every else " OR ".join(each for each in self._fits if each),
            "segment": f"jsonb_build_object({pairs})" if pairs else "'{}'::jsonb",
            "time_zone": "l.time_zone" if placing.zoned else "NULL::text",
            "wave": f"CASE {self._cases()} END",
            "rest": f"CASE WHEN {self._fits[last] or 'true'} THEN {last} END",
            "counts": ", ".join(
                f"count(*) FILTER (WHERE {each or 'true'}) AS fits_{number}" for number, each in enumerate(self._fits)
            ),
            "sums": ", ".join(f"COALESCE(sum(fits_{number}), 0)" for number in range(len(self._fits))),
            "value": labels.text_value(placing.order_by) if placing.order_by else "NULL::text",
            "order_of_value": labels.order_of_value("value") if placing.order_by else "value",
        }

    def fill(self, name: str, **parts: str) -> str:
        """The statement ``name`` of ``placing.sql`` with its parts."""
        text = _sql[name]
        for part, sql in {**parts, **self._parts}.items():
            text = text.replace("{" + part + "}", sql)
        return text

    def eligible(self, number: int, bounds: Sequence[int | None]) -> str:
        """The condition for devices that fit the wave ``number`` and are in none of those before it."""
        earlier = [
            f"NOT ({self._fits[each] or 'true'}" + ("" if bound is None else f" AND key <= {int(bound)}") + ")"
            for each, bound in enumerate(bounds)
        ]
        return " AND ".join([self._fits[number] or "true", *earlier])

    def _cases(self) -> str:
        return " ".join(
            f"WHEN {fits or 'true'} AND l.key <= COALESCE(($8::bigint[])[{number + 1}], {LAST_KEY}) THEN {number}"
            for number, fits in enumerate(self._fits)
        )

    @staticmethod
    def _selector(text: str | None, first_parameter: int) -> Fragment | None:
        return None if text is None else labels.compile_selector(selector.parse(text), first_parameter)


def _key(placing: Placing) -> str:
    """The order key of a device: a number of 44 bits."""
    match placing.order:
        case Order.HASH:
            return HASH_KEY
        case Order.ID:
            return f"(t.ordinal & {LAST_KEY})"
        case Order.LABEL:
            return f"COALESCE({_RANK.format(value=labels.text_value(placing.order_by or ''))}, {LAST_KEY})"


async def begin(connection: Connection, campaign: Campaign) -> None:
    """Begin to place all devices never sent to anew. Until that is done, nothing is sent. Needs the campaign's lock."""
    await connection.execute(_sql["begin"], campaign.tenant_id, campaign.id)


async def store_survey(connection: Connection, campaign: Campaign, found: Survey) -> None:
    """Store the survey with the campaign. Not applied: another worker has stored one, or the policy was edited since."""
    survey = json.dumps(found.to_json())
    await connection.execute(_sql["surveyed"], campaign.tenant_id, campaign.id, survey, campaign.policy_revision)


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
