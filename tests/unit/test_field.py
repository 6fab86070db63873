"""A campaign's devices as bytes: what changed, what a row of the picture shows, and the field in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.overview import field
from rollwave.domain.overview.field import CODES, MAX_RUNS, Changes, Field, Run

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "field_vectors.json").read_text())
STATES = st.binary(max_size=300).map(lambda text: bytes(byte % 6 for byte in text))


def test_each_state_has_its_byte() -> None:
    assert [status.value for status in field.STATES] == [
        *("PENDING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED", "SKIPPED")
    ]
    assert sorted(field.DRAWN) == sorted(CODES.values()) == list(range(6))


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        (b"", b"", []),
        (b"\0\0\0", b"\0\0\0", []),
        (b"\0\0\0\0", b"\0\1\1\0", [Run(1, 2, 1)]),
        (b"\0\0\0\0", b"\1\1\3\3", [Run(0, 2, 1), Run(2, 2, 3)]),
        (b"\0\3\0\0", b"\3\3\3\0", [Run(0, 3, 3)]),  # the device between was in this state before
        (b"\0\2\0\0", b"\3\2\3\0", [Run(0, 1, 3), Run(2, 1, 3)]),
    ],
)
def test_changes_are_runs_of_one_state(before: bytes, after: bytes, runs: list[Run]) -> None:
    assert list(field.runs(before, after)) == runs


@given(STATES, st.data())
def test_runs_turn_one_field_into_the_other(before: bytes, data: st.DataObject) -> None:
    after = data.draw(st.binary(min_size=len(before), max_size=len(before)).map(lambda t: bytes(b % 6 for b in t)))
    found = list(field.runs(before, after))
    assert field.apply(before, found) == after
    changed = sum(was != now for was, now in zip(before, after, strict=True))
    assert len(found) <= changed


def test_a_change_far_inside_a_large_field_is_found() -> None:
    before = bytes(1_000_000)
    after = bytearray(before)
    after[777_777] = 4
    assert list(field.runs(before, bytes(after))) == [Run(777_777, 1, 4)]


def test_changes_name_the_fields_that_they_are_between() -> None:
    before, after = Field("g", 5, b"\0\0"), Field("g", 9, b"\0\4")
    assert field.changes(before, after) == Changes("g", 5, 9, (Run(1, 1, 4),))


def test_a_field_of_another_generation_or_with_too_many_runs_is_read_anew() -> None:
    assert field.changes(Field("g", 1, b"\0"), Field("h", 2, b"\0")) is None
    many = bytes([1, 2] * MAX_RUNS)
    assert field.changes(Field("g", 1, bytes(len(many))), Field("g", 2, many)) is None


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
def test_the_cells_of_a_row_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    states = b"".join(bytes([code]) * devices for code, devices in vector["devices"])
    assert list(field.fill(states, vector["cells"])) == vector["drawn"]


@given(STATES, st.integers(1, 80))
def test_a_row_is_filled_in_proportion(states: bytes, cells: int) -> None:
    drawn = field.fill(states, cells)
    assert len(drawn) == (cells if states else 0)
    failed = CODES[ExecutionStatus.FAILED]
    assert (failed in drawn) == (failed in states)
    for code in CODES.values():
        assert abs(drawn.count(code) - states.count(code) * cells / max(1, len(states))) < 2


@given(st.integers(0, 5000), st.integers(1, 60))
def test_each_device_is_in_one_row(devices: int, number: int) -> None:
    found = field.rows(devices, number)
    assert [index for start, end in found for index in range(start, end)] == list(range(devices))


def test_the_field_in_words() -> None:
    assert field.summary(b"") == "No devices yet."
    assert field.summary(b"\3") == "1 device in dispatch order: 1 SUCCESS."
    assert field.summary(b"\3" * 1200 + b"\4" * 13) == "1,213 devices in dispatch order: 1,200 SUCCESS, 13 FAILED."
