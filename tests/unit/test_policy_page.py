"""The page about policies: its examples are valid, and together they use every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.problems import parse
from rollwave.domain.policy.document.schema import json_schema
from rollwave.domain.policy.document.text import Format
from scripts.policy_examples import EXAMPLES
from scripts.policy_reference import PARTS, keys

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "policy.md").read_text()
WHOLE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def used(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        yield from data
    for each in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from used(each)


def test_every_example_is_valid_and_every_key_has_one() -> None:
    documents = [to_data(parse(each, Format.YAML)) for each in WHOLE]
    assert set(keys()) <= {key for document in documents for key in used(document)}


WAYS = {
    "document": ("", ""),
    "wave": ("waves:\n- {BESIDE KEY}\n- {}", "size: 5"),
    "gate": ("waves:\n- size: 50\n  gate: {KEY}\n- {}", ""),
    "pace": ("pace: {BESIDE KEY}", "per_minute: 1000"),
    "ramp": ("pace: {per_minute: 1000, ramp: {BESIDE KEY}}", "from: 1, factor: 3, every_succeeded: 7"),
    "bytes": ("pace: {bytes: {KEY}}", ""),
    "budget": ("budgets: [{BESIDE KEY}]", "per: line, max_in_flight: 7"),
    "guardrail": ("guardrails: [{BESIDE KEY}]", ""),
    "retry": ("retry: {KEY}", ""),
    "deadlines": ("deadlines: {KEY}", ""),
    "schedule": ("schedule: {KEY}", ""),
    "window": ("schedule: {windows: [{BESIDE KEY}]}", 'kind: allow, cron: "0 3 * * *", duration: 3h'),
}
"""How a key of each table stands in a document, and what has to stand beside it."""

INSTEAD = {
    ("window", "kind"): 'cron: "0 3 * * *", duration: 3h',
    ("window", "start"): "kind: deny, end: 2028-01-07T00:00:00Z",
    ("window", "end"): "kind: deny, start: 2027-12-18T00:00:00Z",
    ("guardrail", "action"): "scope: segment, per: [site]",
    ("guardrail", "alpha"): "method: sequential",
    ("guardrail", "per"): "scope: segment",
}


@pytest.mark.parametrize(("table", "key"), [(table, key) for table, of in EXAMPLES.items() for key in of])
def test_the_example_of_each_key_is_valid(table: str, key: str) -> None:
    text, _ = EXAMPLES[table][key]
    way, beside = WAYS[table]
    rest = [each for each in INSTEAD.get((table, key), beside).split(", ") if each and not each.startswith(f"{key}:")]
    document = text if not way else way.replace("BESIDE KEY", "KEY").replace("KEY", ", ".join([*rest, text]))
    assert key in set(used(to_data(parse(document, Format.YAML))))


def test_every_key_of_every_table_has_an_example() -> None:
    schema = json_schema()
    for table, part in PARTS.items():
        assert set(EXAMPLES[table]) == set((schema["$defs"][part] if part else schema)["properties"]), table
