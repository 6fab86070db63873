"""Every kind of payload that a device may send, and its parsed result."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.reports.parse import MAX_ATTEMPT, MAX_ERROR, Empty, Rejected, Report, parse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
"""Values that JSON text can express."""


def body(**changes: Any) -> bytes:
    return json.dumps({"campaign_id": 7, "status": "DOWNLOADING"} | changes).encode()


def test_the_four_keys_of_the_contract_are_read() -> None:
    report = parse(b'{"campaign_id": 7, "status": "DOWNLOADING", "progress": 75, "error": "slow"}')
    assert report == Report(CampaignId(7), ExecutionStatus.DOWNLOADING, 75, "slow")


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
    ],
)
def test_invalid_payloads_are_rejected(payload: bytes) -> None:
    assert isinstance(parse(payload), Rejected)


def test_an_empty_payload_is_parsed_as_empty() -> None:
    assert parse(b"") == Empty()


@pytest.mark.parametrize(
    ("progress", "read"),
    [
        *((None, None), ("75%", None), (-1, 0), (101, 100), (74.6, 74), (True, None), ([], None), (1e308, 100), (0, 0)),
        *(("75", 75), (" 74.6\n", 74), ("-1", 0), ("+101", 100), ("1e2", 100), (".5", 0), ("1e400", 100)),
        *(("", None), ("nan", None), ("inf", None), ("7_5", None), ("0x4b", None), ("1,5", None), ({}, None)),
        *(("\u0667\u0665", None), ("9" * 5000, None)),
    ],
)
def test_invalid_progress_is_sanitised_and_the_status_kept(progress: object, read: int | None) -> None:
    report = parse(body(progress=progress))
    assert isinstance(report, Report)
    assert report.progress == read


def test_success_always_has_progress_100() -> None:
    report = parse(body(status="success", progress=10))
    assert isinstance(report, Report)
    assert (report.status, report.progress) == (ExecutionStatus.SUCCESS, 100)


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
def test_an_invalid_error_is_sanitised_and_the_status_kept(error: object, read: str | None) -> None:
    report = parse(body(status="FAILED", error=error))
    assert isinstance(report, Report)
    assert report.error == read


def test_a_long_error_is_cut_by_its_bytes() -> None:
    report = parse(body(status="FAILED", error="\U0001f525" * 2000))
    assert isinstance(report, Report)
    assert report.error is not None
    assert len(report.error.encode()) <= MAX_ERROR


def test_nul_characters_are_removed_before_an_error_is_cut() -> None:
    report = parse(body(status="FAILED", error="\x00" * 2000 + "x"))
    assert isinstance(report, Report)
    assert report.error == "x"


def test_unknown_keys_are_ignored() -> None:
    assert isinstance(parse(body(uptime=5, nested={"a": [1]})), Report)


@pytest.mark.parametrize(
    ("attempt", "read"),
    [
        *((1, 1), ("1", 1), (1.0, 1), ("1.0", 1), (" 2\n", 2), (MAX_ATTEMPT, MAX_ATTEMPT)),
        *((0, None), (-1, None), (1.5, None), ("1.5", None), ("first", None), ("", None), ("0", None)),
        *((True, None), (False, None), (None, None), ([1], None), ({"n": 1}, None)),
        *((MAX_ATTEMPT + 1, None), (1e308, None), (10**30, None), ("9" * 5000, None), ("inf", None)),
    ],
)
def test_an_unreadable_attempt_counts_as_missing_and_the_status_is_kept(attempt: object, read: int | None) -> None:
    report = parse(body(status="SUCCESS", attempt=attempt))
    assert report == Report(CampaignId(7), ExecutionStatus.SUCCESS, 100, None, read)
    assert isinstance(report, Report)
    assert report.attempt is None or type(report.attempt) is int


@pytest.mark.parametrize(
    ("code", "read"),
    [
        *(("E_BOOT", "E_BOOT"), ("7", "7"), ("A" * 64, "A" * 64), ("A" * 65, None), ("", None), ("e_boot", None)),
        *(("E BOOT", None), ("E_BOOT\n", None), ("\u00c9", None), (7, None), (["E_BOOT"], None), (None, None)),
    ],
)
def test_an_unreadable_code_counts_as_missing_and_the_status_is_kept(code: object, read: str | None) -> None:
    assert parse(body(status="FAILED", code=code)) == Report(CampaignId(7), ExecutionStatus.FAILED, code=read)


@pytest.mark.parametrize(
    ("version", "read"),
    [
        *(("2.1.0", "2.1.0"), (" 2.1.0 ", "2.1.0"), ("2.1.0-rc.1+gef12", "2.1.0-rc.1+gef12"), ("版", "版")),
        *(("v" * 128, "v" * 128), ("v" * 129, None), ("", None), (" ", None), ("2\x001", None), ("\ud83d", None)),
        *((2.1, None), (["2.1"], None), (None, None)),
    ],
)
def test_an_unreadable_version_counts_as_missing_and_the_status_is_kept(version: object, read: str | None) -> None:
    report = parse(body(status="SUCCESS", version=version))
    assert report == Report(CampaignId(7), ExecutionStatus.SUCCESS, 100, version=read)


OPTIONAL = ("progress", "error", "attempt", "code", "version", "more")


@pytest.mark.parametrize("key", OPTIONAL)
@given(value=json_values)
def test_an_invalid_optional_key_never_invalidates_the_status(key: str, value: object) -> None:
    report = parse(json.dumps({"campaign_id": 7, "status": "SUCCESS", key: value}).encode())
    assert isinstance(report, Report)
    assert report.status is ExecutionStatus.SUCCESS


@pytest.mark.parametrize("key", OPTIONAL)
def test_a_deeply_nested_value_invalidates_the_status_only_if_unparseable(key: str) -> None:
    """Writing an object as JSON uses more stack than reading it."""
    for depth in range(900, 1000):
        value = b'{"a":' * depth + b"1" + b"}" * depth
        body = b'{"campaign_id": 7, "status": "FAILED", "%s": ' + value + b"}"
        assert type(parse(body % key.encode())) is type(parse(body % b"uptime")), depth


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(["campaign_id", "status", *OPTIONAL]), json_values).map(
        lambda d: json.dumps(d).encode()
    )
)
@example(b'{"campaign_id": 7, "status": "FAILED", "error": "\\ud83d"}')
def test_parsing_never_raises_and_its_result_can_be_stored(payload: bytes) -> None:
    report = parse(payload)
    if isinstance(report, Report):
        assert 0 < report.campaign_id < 2**63
        assert report.progress is None or 0 <= report.progress <= 100
        assert report.attempt is None or 0 < report.attempt <= MAX_ATTEMPT
        assert report.error is None or ("\x00" not in report.error and len(report.error.encode()) <= MAX_ERROR)
