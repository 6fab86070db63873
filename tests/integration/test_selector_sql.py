"""Selectors in SQL agree with the reference evaluator for any documents, and no value raises an error."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollwave.domain.policy.selector.evaluate import evaluate, labels_of
from rollwave.domain.policy.selector.model import (
    AllOf,
    AnyOf,
    Compare,
    Has,
    Like,
    Not,
    OneOf,
    Operator,
    Selector,
    Value,
)
from rollwave.domain.policy.selector.versions import version_key
from rollwave.store import labels
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.selector_sql import compile_selector

NOW = datetime(2027, 1, 11, 8, tzinfo=UTC)

TEXT = st.one_of(
    st.sampled_from(
        ["", "a", "ab", "b", "B", "é", "ß", "%", "_", "a_b", "\\", "'", "1", "10", "9", "$1", "\x01", "a b", "😀"]
    ),
    st.text("ab%_\\*é1. ", max_size=4),
)
VERSIONS = st.one_of(
    st.sampled_from(
        [
            "1",
            "1.0",
            "v1.0.0",
            "1.10",
            "1.9",
            "a0.0",
            "rc.0",
            "1.0-rc.1",
            "1.0-rc.1.x",
            "1.0+b",
            "1-",
            "0",
            "00",
            "1..2",
            "+",
            "-",
        ]
    ),
    st.text("0129.-+avrc!#\x01\x02 é\n", max_size=8),
    st.text("01", min_size=18, max_size=26),
    st.text("1.", min_size=195, max_size=205),
)
NUMBERS = st.one_of(
    st.integers(-3, 3).map(Decimal),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=3),
    st.sampled_from([Decimal("1.0"), Decimal("1e29"), Decimal("1e-30"), Decimal("9" * 30)]),
)
ZONES = st.sampled_from(["UTC", "Europe/Zurich", "nowhere"])
TIMES = st.sampled_from([NOW + timedelta(seconds=each) for each in (-1e9, -86_400, -0.000001, 0, 0.000001, 1e9)])
JSON: st.SearchStrategy[Any] = st.one_of(
    TEXT, NUMBERS, st.booleans(), st.none(), st.lists(st.just("a"), max_size=1), st.just({"a": 1}), VERSIONS
)
KEYS = st.sampled_from(["a", "b", "c.d", "x-y:z", "'", "$1"])
ATTRIBUTES = st.dictionaries(
    st.one_of(KEYS, st.sampled_from(["version", "time_zone", "device_id", "device_type", "last_seen"])),
    JSON,
    max_size=5,
)
DEVICES = st.tuples(
    ATTRIBUTES, st.one_of(st.none(), TEXT), st.one_of(st.none(), VERSIONS), st.one_of(st.none(), ZONES),
    st.one_of(st.none(), TIMES), st.booleans()
)  # fmt: skip


def _comparison(values: st.SearchStrategy[Value], keys: st.SearchStrategy[str]) -> st.SearchStrategy[Selector]:
    return st.one_of(
        st.builds(Compare, keys, st.sampled_from(Operator), values),
        st.builds(OneOf, keys, st.lists(values, min_size=1, max_size=3).map(tuple)),
    )


TEXT_KEYS = st.sampled_from(["device_id", "device_type", "time_zone"])
AGES = st.sampled_from([timedelta(0), timedelta(days=-1), timedelta(microseconds=-1), timedelta(days=-36_500)])
COMPARISONS = st.one_of(
    _comparison(st.one_of(TEXT, NUMBERS), KEYS),
    _comparison(st.one_of(TEXT, st.just("device-1"), ZONES), TEXT_KEYS),
    _comparison(VERSIONS, st.just("version")),
    _comparison(st.one_of(TIMES, AGES), st.just("last_seen")),
    st.builds(Has, st.one_of(KEYS, TEXT_KEYS, st.sampled_from(["version", "last_seen"]))),
    st.builds(Like, st.one_of(KEYS, TEXT_KEYS, st.just("version")), st.one_of(TEXT, st.text("ab*%_\\1.", max_size=5))),
)
SELECTORS: st.SearchStrategy[Selector] = st.recursive(
    COMPARISONS,
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.builds(AllOf, st.lists(parts, min_size=2, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(parts, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


def _json(attributes: dict[str, Any]) -> str:
    """Numbers exactly, as a document may have them."""
    values = {key: f"{each:f}" if isinstance(each, Decimal) else json.dumps(each) for key, each in attributes.items()}
    return "{" + ", ".join(f"{json.dumps(key)}: {each}" for key, each in values.items()) + "}"


async def _insert(connection: Connection, devices: list[tuple[Any, ...]]) -> None:
    await connection.execute(
        "INSERT INTO devices (tenant_id, device_id, device_type, attributes)"
        " SELECT 'north', 'device-' || n, type, attributes::jsonb"
        " FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (type, attributes, n)",
        [each[1] for each in devices],
        [_json(each[0]) for each in devices],
    )
    await connection.execute(
        "INSERT INTO rollwave_device_fields (tenant_id, device_id, version, time_zone, last_seen)"
        " SELECT 'north', 'device-' || n, version, zone, seen::timestamptz"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[])"
        " WITH ORDINALITY AS u (version, zone, seen, has, n) WHERE has",
        [each[2] for each in devices],
        [each[3] for each in devices],
        [each[4] and each[4].isoformat() for each in devices],
        [each[5] for each in devices],
    )


def _expected(devices: list[tuple[Any, ...]]) -> dict[str, dict[str, object]]:
    """The labels of each device, and of one that nobody registered."""
    found: dict[str, dict[str, object]] = {"unregistered": {"device_id": "unregistered"}}
    for number, (attributes, device_type, version, zone, seen, has_fields) in enumerate(devices, 1):
        device_id = f"device-{number}"
        fields = {"version": version or None, "time_zone": zone, "last_seen": seen} if has_fields else {}
        found[device_id] = dict(labels_of(attributes, device_id=device_id, device_type=device_type, **fields))
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(devices=st.lists(DEVICES, min_size=1, max_size=8), selectors=st.lists(SELECTORS, min_size=8, max_size=8))
async def test_sql_and_the_evaluator_agree(
    pool: Pool, devices: list[tuple[Any, ...]], selectors: list[Selector]
) -> None:
    expected = _expected(devices)
    with suppress(_Undo):
        async with tenant_transaction(pool, "north") as connection:
            await connection.execute("INSERT INTO tenants VALUES ('north')")
            await _insert(connection, devices)
            source = await labels.source(connection)
            for selector in selectors:
                await _compare(connection, source, selector, expected)
            raise _Undo


async def _compare(
    connection: Connection, source: labels.Source, selector: Selector, expected: dict[str, dict[str, object]]
) -> None:
    chosen = compile_selector(selector, 3)
    rows = await connection.fetch(
        f"SELECT l.device_id, ({chosen.sql}) AS matches, statement_timestamp() AS now"
        f" FROM {source.of_ids('$1', '$2')} AS l",
        *("north", [*expected], *chosen.parameters),
    )
    assert len(rows) == len(expected)
    for row in rows:
        device = expected[row["device_id"]]
        assert row["matches"] == evaluate(selector, device, row["now"]), (selector, device)
    chosen = compile_selector(selector, 2)
    registered = await connection.fetch(
        f"SELECT l.device_id FROM {source.of_all('$1')} AS l WHERE {chosen.sql}", "north", *chosen.parameters
    )
    matching = {row["device_id"] for row in rows if row["matches"]}
    assert {row["device_id"] for row in registered} == matching - {"unregistered"}


class _Undo(Exception):
    """Rolls a transaction back."""


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(versions=st.lists(VERSIONS, min_size=2, max_size=40))
async def test_versions_have_the_same_order_in_sql(pool: Pool, versions: list[str]) -> None:
    rows = await pool.fetch(
        "SELECT v.version, rollwave_version_key(v.version) AS key FROM unnest($1::text[]) AS v (version)"
        ' ORDER BY rollwave_version_key(v.version) COLLATE "C"',
        versions,
    )
    keys = [version_key(row["version"]) for row in rows]
    assert keys == sorted(keys)
    assert len({row["key"] for row in rows}) == len(set(keys))
