"""Malformed, hostile and unusual input to the API: the response is a problem document, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, FIRMWARE, assert_problem, calling, prepare_campaign_body

JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def each(field: str, *bad: Any) -> list[dict[str, Any]]:
    """Request bodies with one invalid value each, to be merged into a valid body."""
    return [{field: value} for value in bad]


BAD_CAMPAIGNS = [
    *each("rollout_rate", 0, -1, 1_000_001, 1e9, "5", 2.5, True, None, float("nan")),
    *each("abort_threshold", 1.01, -0.01, "0.1", True, None, float("nan"), float("inf")),
    *each("abort_min_completed", 0, 2**31, "1", None),
    *each("canary_percent", 0, 100.1, float("nan"), "5"),
    *each("max_in_flight", 0, 2**31, "1", 1.5),
    *each("progress_timeout", 0, -1, 1e12, float("inf"), "60"),
    *each("max_attempts", 0, 32_768, "3"),
    *each("firmware_version_id", 0, -1, 2**63, "1", True, 1.5, None, [1]),
    *each("target_group_id", "", "a\x00b", "x" * 201, 5, None),
    *each("name", "", "a\x00b", "half \ud800 pair", "x" * 201, 5, None, {}),
    *each("rollout_strategy", "", "LINEAR", "blue-green", None, 1),
    {"abort_treshold": 0.5},
]

UNTRIMMED = [
    *("2.1.0\n", "2.1.0\r", "2.1.0\r\n", "\n2.1.0", "2.1.0\x85", "2.1.0\u2028", "\t2.1.0", "2.1.0\x00"),
    *("2.1.0 ", " 2.1.0", "2.1.0\u00a0", "\u30002.1.0", "\ufeff2.1.0", "2.1.0\u200b", " "),
    *("2.1\n.0", "2.1\x1b[2J.0", "2.1\x7f.0", "2.1\u2029.0"),
]
"""Whitespace that comes with a line read from a file, or a cell copied from a table."""

BAD_FIRMWARE = [
    *each(
        "file_url",
        "",
        "fw.bin",
        "/fw.bin",
        "//h/fw.bin",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:,x",
        "ftp://h/f",
        "mqtt://h/f",
        "https:h/f",
        "https:///f",
        "https://user@h/f",
        "https://user:secret@h/f",
        "https://user:80@h/f",
        "https://h\\@evil/f",
        "https://h/a b",
        "https://h/\n",
        "https://h/f\n",
        " https://h/f",
        "https://h/\x00",
        "https://h:port/f",
        "https://h/" + "x" * 8000,
        *(f"https://h/f{blank}" for blank in ("\r", "\r\n", "\t", " ", "\u00a0", "\u200b", "\ufeff", "\x85", "\x7f")),
        "https://[::1/f",
        "https://h\u2100/f",
        None,
        5,
    ),
    *each(
        "checksum_sha256", "a" * 63, "a" * 65, "g" * 64, "\uff41" * 64, "a" * 64 + "\n", "md5:" + "a" * 64, "sha256:", 5
    ),
    *each("file_size_bytes", -1, 2**63, 1.5, "7", True),
    *each("version", "", "\x00", "\udfff", "x" * 201, 2.1, None),
    *each("version", *UNTRIMMED),
    *each("device_type", "", "\x00", 1, *UNTRIMMED),
    *each("checksum_sha256", *("a" * 64 + blank for blank in ("\r", "\r\n", " ")), " " + "a" * 64),
    *each("description", "a\x00", "x" * 2001, 1),
    {"signature": "x"},
]

BAD_DEVICES = [
    *each("device_type", "", "\x00", 1, *UNTRIMMED),
    *each("attributes", None, [], "x", 1),
    *each("attributes", {"a\x00": 1}, {"a": "\x00"}, {"a": ["\ud800"]}, {"a": float("nan")}, {"a": deep(16)}),
    {"serial": "x"},
]

BAD_GROUPS = [
    {},
    *each("device_ids", None, "d1", {}, [1], [None], [["d1"]]),
    *each(
        "device_ids",
        [""],
        ["ok", "a/b"],
        ["a+b"],
        ["#"],
        ["a\n"],
        ["\x00"],
        ["\x85"],
        ["\ud800"],
        ["\ufdd0"],
        ["a\U0001ffff"],
        ["$a"],
        [" a"],
        ["a\u00a0"],
        ["é" * 129],
        ["x" * 129],
    ),
    {"device_ids": ["d1"], "name": "x"},
    {"device_ids": ["d"] * 100_001},
]


async def test_a_bad_value_in_a_body_gets_422(north: httpx2.AsyncClient) -> None:
    campaign = await prepare_campaign_body(north)
    cases = [
        *(("POST", CAMPAIGNS, campaign | bad) for bad in BAD_CAMPAIGNS),
        *(("POST", CAMPAIGNS, {k: v for k, v in campaign.items() if k != missing}) for missing in campaign),
        *(("POST", "/firmware", FIRMWARE | bad) for bad in BAD_FIRMWARE),
        *(("PUT", "/devices/d1", bad) for bad in BAD_DEVICES),
        *(("PUT", "/device-groups/site", bad) for bad in BAD_GROUPS),
    ]
    for method, path, body in cases:
        answer = await north.request(method, path, content=json.dumps(body), headers=JSON)
        assert answer.status_code == 422, (path, str(body)[:200], answer.text)
        assert assert_problem(answer, 422, "invalid-input")["errors"]
    assert (await north.get(CAMPAIGNS)).json()["total"] == 0
    assert (await north.get("/firmware")).json()["total"] == 1
    assert (await north.get("/devices")).json()["total"] == 3


async def test_an_error_names_the_field_and_not_the_value(north: httpx2.AsyncClient) -> None:
    body = FIRMWARE | {"file_url": "https://user:hunter2@h/f"}
    problem = assert_problem(await north.post("/firmware", json=body), 422, "invalid-input")
    (error,) = problem["errors"]
    assert (error["location"], error["field"]) == ("body", "file_url")
    assert "hunter2" not in json.dumps(problem)


async def test_a_value_with_surrounding_whitespace_is_refused_by_field(north: httpx2.AsyncClient) -> None:
    for field, value in (("version", "2.1.0\r"), ("file_url", "https://h/f\n"), ("device_type", "gateway ")):
        problem = assert_problem(await north.post("/firmware", json=FIRMWARE | {field: value}), 422, "invalid-input")
        assert [error["field"] for error in problem["errors"]] == [field]
    assert (await north.post("/firmware", json=FIRMWARE | {"version": "2.1.0 (spring) \u00fc"})).status_code == 201


async def test_a_signed_url_of_8000_characters_is_stored_unchanged(north: httpx2.AsyncClient) -> None:
    url = "https://files.example/fw.bin?signature=" + "a%2F" * 1990 + "b"
    assert len(url) == 8000
    made = await north.post("/firmware", json=FIRMWARE | {"file_url": url})
    assert (made.status_code, made.json()["file_url"]) == (201, url)
    await north.put("/device-groups/site", json={"device_ids": ["d1"]})
    body = {"name": "spring", "firmware_version_id": made.json()["id"], "target_group_id": "site"}
    assert (await north.post(CAMPAIGNS, json=body)).json()["firmware_url"] == url
    assert_problem(await north.post("/firmware", json=FIRMWARE | {"file_url": f"{url}x"}), 422, "invalid-input")


async def test_a_body_with_very_many_errors_gets_a_short_response(north: httpx2.AsyncClient) -> None:
    answer = await north.put("/device-groups/site", json={"device_ids": ["a/b"] * 50_000})
    assert len(assert_problem(answer, 422, "invalid-input")["errors"]) == 20


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"\xff\xfe{\x00}\x00",
        b'{"version": "\xff"}',
        b"[" * 200_000,
        b'{"version": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_body_that_is_not_an_object_gets_422(north: httpx2.AsyncClient, body: bytes) -> None:
    assert_problem(await north.post("/firmware", content=body, headers=JSON), 422, "invalid-input")


async def test_a_body_without_a_json_content_type_gets_422(north: httpx2.AsyncClient) -> None:
    body = json.dumps(FIRMWARE)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await north.post("/firmware", content=body, headers={"Content-Type": kind})
        assert_problem(answer, 422, "invalid-input")


@pytest.mark.parametrize(
    "path",
    [
        *(f"{CAMPAIGNS}/{bad}" for bad in ("0", "-1", "x", "1.5", str(2**63), "9" * 5000, "%00")),
        *(
            f"{CAMPAIGNS}?{bad}"
            for bad in ("status=running", "status=", "limit=0", "limit=1001", "limit=x", "cursor=x")
        ),
        *(f"{CAMPAIGNS}/1/devices?{bad}" for bad in ("status=DONE", "cursor=%00", f"cursor={'x' * 1001}")),
        *(f"{CAMPAIGNS}/1/events?{bad}" for bad in ("after=-1", "after=x", f"after={2**63}")),
        *(
            f"/devices/{bad}"
            for bad in ("%20a", "a%C2%A0", "$a", "%EF%BF%BF", "a%2Bb", "a%23b", "%00", "a%0A", "x" * 129)
        ),
        *(f"/device-groups/{bad}" for bad in ("a%20", "%00", "x" * 129)),
        "/devices?device_type=%00",
        "/firmware?device_type=",
    ],
    ids=lambda path: path[:60],
)
async def test_a_bad_value_in_a_url_gets_422(north: httpx2.AsyncClient, path: str) -> None:
    assert_problem(await north.get(path), 422, "invalid-input")


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "é"])
async def test_an_idempotency_key_must_be_printable(north: httpx2.AsyncClient, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode()}
    answer = await north.post(CAMPAIGNS, json=await prepare_campaign_body(north), headers=headers)
    assert_problem(answer, 422, "invalid-input")


async def test_unknown_paths_and_ids_get_404(north: httpx2.AsyncClient) -> None:
    for path in ("/nothing", "/devices/a%2Fb", "http://test/api/v2/customer/firmware", "http://test/docs"):
        assert_problem(await north.get(path), 404, "not-found")


async def test_an_unsupported_method_gets_405_and_the_allowed_methods(north: httpx2.AsyncClient) -> None:
    for path, allowed in {
        "/firmware": "GET, HEAD, POST",
        "/firmware/1": "DELETE, GET, HEAD",
        "/devices/d1": "GET, HEAD, PUT",
        f"{CAMPAIGNS}/1/start": "POST",
        "http://test/livez": "GET, HEAD",
        "http://test/customer/firmware": "GET, HEAD, POST",
    }.items():
        answer = await north.patch(path)
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["Allow"] == allowed


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65_536):
        yield b" " * 65_536


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_gets_413(north: httpx2.AsyncClient, chunked: bool) -> None:
    for path, limit in (("/devices/d1", MIB), ("/device-groups/site", 8 * MIB)):
        for size, status in ((limit, 422), (limit + 65_536, 413), (10 * MIB, 413)):
            body = in_chunks(size) if chunked else b" " * size
            answer = await north.put(path, content=body, headers=JSON)
            assert_problem(answer, status, "invalid-input" if status == 422 else "body-too-large")


async def test_an_internal_error_gets_500_without_details(pool: Pool, north: httpx2.AsyncClient) -> None:
    await pool.execute("ALTER TABLE firmware_versions RENAME COLUMN description TO gone")
    assert assert_problem(await north.get("/firmware"), 500, "internal-error").keys() == {"type", "title", "status"}


async def test_the_detail_names_the_first_invalid_field_and_the_reason(north: httpx2.AsyncClient) -> None:
    problem = assert_problem(await north.post("/firmware", json={**FIRMWARE, "version": ""}), 422, "invalid-input")
    assert problem["detail"] == f"version: {problem['errors'][0]['detail']}"
    problem = assert_problem(await north.post("/firmware", json={"version": ""}), 422, "invalid-input")
    assert problem["detail"] == f"version: {problem['errors'][0]['detail']} (and 1 more)"
    problem = assert_problem(await north.post("/firmware"), 422, "invalid-input")
    assert problem["detail"].startswith("body: ")
    problem = assert_problem(await north.get("/firmware", params={"limit": 0}), 422, "invalid-input")
    assert problem["detail"].startswith("limit: ")
