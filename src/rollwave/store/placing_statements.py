"""Makes the statements of ``placing.sql`` for one policy document: its selectors, labels and order are parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rollwave.domain.execution import WAVE_BITS
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.placing import Order, Placing
from rollwave.domain.policy.selector.model import TIME_ZONE
from rollwave.domain.policy.selector.text import parse
from rollwave.store import labels
from rollwave.store.queries import load
from rollwave.store.selector_sql import Fragment, compile_selector, label_order, label_text

_sql = load("placing")

LAST_KEY = (1 << WAVE_BITS) - 1
"""The largest order key."""

BITS_BEHIND_RANK = 20
"""Bits of an order key after the rank of the value of the label that orders the queue."""

LAST_RANK = (1 << (WAVE_BITS - BITS_BEHIND_RANK)) - 1
"""The rank of devices without that label."""


NOTHING_TO_CHECK = "NULL::text AS twice, '{}'::text[] AS zones"
"""The columns of what a host's view has, for labels of the registry, which checks them."""


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


class Parts:
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
            "labels_of_batch": self._labels_of_batch,
            "host_labels": lambda: f"{_sql['host_labels']}, " if self._source.labels.of_host else "",
            "checked": lambda: _sql["checked"] if self._source.labels.of_host else NOTHING_TO_CHECK,
            "key": self._key,
            "fits": lambda: "true" if None in self._fits else " OR ".join(self._fit(each) for each in waves),
            "segment": self._segment,
            "budget_values": self._budget_values,
            "held_for": self._held_for,
            "time_zone": lambda: "l.time_zone" if self._placing.zoned else "NULL::text",
            "wave": lambda: f"CASE {' '.join(self._case(each) for each in waves)} END",
            "rest": lambda: f"CASE WHEN {self._fit(waves[-1])} THEN {waves[-1]} END",
            "last_wave": lambda: str(waves[-1]),
            "counts": lambda: ", ".join(f"count(*) FILTER (WHERE {self._fit(each)}) AS fits_{each}" for each in waves),
            "sums": lambda: ", ".join(f"COALESCE(sum(fits_{each}), 0)" for each in waves),
            "value": lambda: self._value(self._placing.order_by or ""),
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

    def _labels_of_batch(self) -> str:
        of = self._source.labels
        return "host_labels" if of.of_host else of.of_ids("$1", "(SELECT array_agg(device_id) FROM batch)")

    def _case(self, number: int) -> str:
        bound = f"COALESCE(({self._bounds}::bigint[])[{number + 1}], {LAST_KEY})"
        return f"WHEN {self._fit(number)} AND l.key <= {bound} THEN {number}"

    def _value(self, key: str) -> str:
        """The value of a label as it is stored in an index: of a long one its beginning and a hash."""
        return f"rollwave_budget_value({self._add(label_text(key, self._next))})"

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
            pairs.append(f"{name}, {self._value(key)}")
        return f"jsonb_build_object({', '.join(pairs)})"

    def _budget_values(self) -> str:
        """The values of the budgets' labels."""
        if not self._placing.budgets:
            return "NULL::text[]"
        return f"ARRAY[{', '.join(self._value(key) for key, _ in self._placing.budgets)}]"

    def _held_for(self) -> str:
        """The number of the budget that holds a device with these ``budget_values`` while it is placed. NULL: none."""
        cases = (f"WHEN budget_values[{number}] IS NOT NULL THEN {number}" for number in self._placing.holding)
        return f"CASE {' '.join(cases)} END" if self._placing.holding else "NULL::int"

    def _key(self) -> str:
        """The order key of a device: a number of 44 bits."""
        match self._placing.order:
            case Order.HASH:
                return _hash(WAVE_BITS)
            case Order.ID:
                return f"(t.ordinal & {LAST_KEY})"
            case Order.LABEL:
                # Devices with the same value have different keys, since a wave ends at a key.
                rank = self.fill("rank_of", last_rank=str(LAST_RANK))
                return f"({rank} << {BITS_BEHIND_RANK}) + {_hash(BITS_BEHIND_RANK)}"


def _hash(bits: int) -> str:
    """A number of so many bits, which are a multiple of 4, from the ids of campaign and device."""
    return f"('x' || substr(md5($2::bigint || ':' || t.device_id), 1, {bits // 4}))::bit({bits})::bigint"
