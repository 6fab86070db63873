"""A document is written as it was read, and the published schema accepts what the parser accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rollwave.domain.policy.document import emit
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import parse, parse_data
from rollwave.domain.policy.document.schema import json_schema
from rollwave.domain.policy.document.text import Format
from tests.documents import policies

SCHEMA = jsonschema_rs.validator_for(json_schema())
EXAMPLE = (Path(__file__).parent / "policy_example.yaml").read_text()


@given(policies)
def test_a_document_is_read_back_as_the_same_from_yaml_and_from_json(data: dict[str, Any]) -> None:
    document = parse_data(data)
    canonical = emit.to_data(document)
    assert parse_data(canonical) == document
    assert emit.to_data(parse_data(canonical)) == canonical
    assert parse(emit.to_yaml(canonical), Format.YAML) == document
    assert parse(json.dumps(canonical), Format.JSON) == document


@given(policies)
def test_the_schema_accepts_every_document_and_its_canonical_form(data: dict[str, Any]) -> None:
    SCHEMA.validate(data)
    SCHEMA.validate(emit.to_data(parse_data(data)))


def test_the_schema_accepts_the_example() -> None:
    SCHEMA.validate(emit.to_data(parse(EXAMPLE, Format.YAML)))


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value."""
    for key in data if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from places(data[key])


_other_values = st.sampled_from(
    [
        *(0, 1, -1, 1.0, 1.5, 2**31, 2**40, True, False, "", "x", "5%", "101%", "007%", "90s", "2 h", "366d"),
        *("50MiB", "0B", "E_BOOT", "abort", "quarantine", "hash", "2027-01-11T08:00:00Z", "2027-02-30T08:00:00Z"),
        *("2027-01-11", [], {}, [1], ["no_answer"], ["A", "A"], {"x": 1}),
    ]
)


@settings(max_examples=500)
@given(policies.filter(bool), st.data())
def test_the_schema_and_the_parser_agree_about_every_value(document: dict[str, Any], data: st.DataObject) -> None:
    changed = json.loads(json.dumps(document))
    container, key = data.draw(st.sampled_from(list(places(changed))), "place")
    container[key] = data.draw(_other_values, "value")
    beyond, within = rules_broken(changed)
    assert SCHEMA.is_valid(changed) is not within, (beyond, list(SCHEMA.iter_errors(changed)))


def rules_broken(data: object) -> tuple[bool, bool]:
    """Whether the parser finds rules broken that a schema cannot express, and such that it can."""
    try:
        PolicyDocument.model_validate(data)
    except ValidationError as error:
        kinds = {each["type"] for each in error.errors()}
        return "policy_rule" in kinds, bool(kinds - {"policy_rule"})
    return False, False
