"""Every class of payload that a device may send, and the answer it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.report import MAX_ERROR, Empty, Rejected, Report, parse


def body(**changes: Any) -> bytes:
    return json.dumps({"campaign_id": 7, "status": "DOWNLOADING"} | changes).encode()


def test_the_contracts_four_keys() -> None:
    said = parse(b'{"campaign_id": 7, "status": "DOWNLOADING", "progress": 75, "error": "slow"}')
    assert said == Report(CampaignId(7), ExecutionStatus.DOWNLOADING, 75, "slow")


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"[]",
        b"5",
        b'{"campaign_id": 7, "status": "SUCC',
        '{"campaign_id": 7, "status": "SUCCESS"}'.encode("utf-16"),
        b'{"campaign_id": 7, "status": "SUCCESS", "error": "\xff"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b" " * 65_537,
        b'{"campaign_id": 7, "campaign_id": 8, "status": "SUCCESS"}',
        b'{"status": "SUCCESS"}',
        body(campaign_id=True),
        body(campaign_id=1.9),
        body(campaign_id=0),
        body(campaign_id=-1),
        body(campaign_id="7"),
        b'{"campaign_id": ' + b"9" * 5000 + b', "status": "SUCCESS"}',
        body(campaign_id=2**63),
        b'{"campaign_id": 7}',
        body(status=["SUCCESS"]),
        body(status="PENDING"),
        body(status="SKIPPED"),
        body(status="\u017fucce\u017f\u017f"),
        b'{"campaign_id": 7, "status": "DOWNLOADING", "progress": NaN}',
        body(attempt="1"),
        body(attempt=0),
    ],
)
def test_turned_away(payload: bytes) -> None:
    assert isinstance(parse(payload), Rejected)


def test_empty_is_nothing_said() -> None:
    assert parse(b"") == Empty()


@pytest.mark.parametrize(
    ("progress", "read"),
    [(None, None), ("75%", None), (-1, 0), (101, 100), (74.6, 74), (True, None), ([], None), (1e308, 100), (0, 0)],
)
def test_progress_is_sanitised_and_the_status_stands(progress: object, read: int | None) -> None:
    said = parse(body(progress=progress))
    assert isinstance(said, Report)
    assert said.progress == read


def test_success_is_complete_whatever_it_says() -> None:
    said = parse(body(status="success", progress=10))
    assert isinstance(said, Report)
    assert (said.status, said.progress) == (ExecutionStatus.SUCCESS, 100)


@pytest.mark.parametrize(
    ("error", "read"),
    [
        ({"code": 7, "why": ["x"]}, '{"code":7,"why":["x"]}'),
        ("a\x00b", "ab"),
        ("\ud800", "?"),
        ("", None),
        (None, None),
        ("x" * 60_000, "x" * MAX_ERROR),
        ("<script>alert(1)</script>\x1b[31m", "<script>alert(1)</script>\x1b[31m"),
    ],
)
def test_error_is_sanitised_and_the_status_stands(error: object, read: str | None) -> None:
    said = parse(body(status="FAILED", error=error))
    assert isinstance(said, Report)
    assert said.error == read


def test_a_long_error_of_wide_letters_is_cut_to_bytes() -> None:
    said = parse(body(status="FAILED", error="\U0001f525" * 2000))
    assert isinstance(said, Report)
    assert said.error is not None
    assert len(said.error.encode()) <= MAX_ERROR


def test_unknown_keys_are_ignored() -> None:
    assert isinstance(parse(body(uptime=5, nested={"a": [1]})), Report)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(["campaign_id", "status", "progress", "error", "attempt"]), json_values).map(
        lambda d: json.dumps(d).encode()
    )
)
@example(b'{"campaign_id": 7, "status": "FAILED", "error": "\\ud83d"}')
def test_never_raises_and_what_it_accepts_can_be_stored(payload: bytes) -> None:
    said = parse(payload)
    if isinstance(said, Report):
        assert 0 < said.campaign_id < 2**63
        assert said.progress is None or 0 <= said.progress <= 100
        assert said.error is None or ("\x00" not in said.error and len(said.error.encode()) <= MAX_ERROR)
