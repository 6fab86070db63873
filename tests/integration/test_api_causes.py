"""The causes of a campaign's failures over HTTP, and the lists of devices behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest

from rollwave.domain.overview.causes import By
from rollwave.engine import causes
from rollwave.store.database import Pool, tenant_transaction
from tests.api import CAMPAIGNS, assert_problem, calling, create_campaign


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


@pytest.fixture
async def south(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "south") as client:
        yield client


async def register(client: httpx2.AsyncClient, names: Sequence[str], *, version: str, **labels: object) -> None:
    for name in names:
        answer = await client.put(f"/devices/{name}", json={"version": version, "attributes": labels})
        assert answer.status_code == 200, answer.text


async def end(
    pool: Pool, path: str, names: Sequence[str], status: str, *, tenant: str = "north", **columns: object
) -> None:
    settings = "".join(f", {name} = ${number}" for number, name in enumerate(columns, start=5))
    await pool.execute(
        f"UPDATE ota_device_status SET status = $4, attempt = 1, completed_at = now(){settings}"
        " WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = ANY ($3::text[])",
        *(tenant, number_of(path), names, status, *columns.values()),
    )


def number_of(path: str) -> int:
    return int(path.rpartition("/")[2])


def names(prefix: str, number: int) -> list[str]:
    return [f"{prefix}-{each:03}" for each in range(number)]


B, A = names("b", 20), names("a", 40)
BAD = B[:13]


@pytest.fixture
async def path(pool: Pool, north: httpx2.AsyncClient) -> str:
    """A campaign in which 13 of 20 devices of revision B fail, and one of 40 of revision A falls silent."""
    path = await create_campaign(north, *A, *B)
    await register(north, A, version="2.1.0", revision="A", serial="x", line=1)
    await register(north, B, version="2.1.0", revision="B", serial="x", line=1)
    await register(north, BAD[:1], version="2.0.0", revision="B", serial="x", line=1)
    await end(pool, path, BAD, "FAILED", error_code="E_BOOT", failed_reason="reported")
    await end(pool, path, [*B[13:], *A[1:]], "SUCCESS")
    await end(pool, path, A[:1], "FAILED", failed_reason="no_answer")
    return path


async def test_failures_are_grouped_by_code_the_best_label_and_version(north: httpx2.AsyncClient, path: str) -> None:
    found = (await north.get(f"{path}/causes")).json()
    assert (found["failed"], found["read"], found["label"], found["text"]) == (14, 14, "revision", "")
    assert found["by"] == ["code", "label:revision", "from_version"]
    assert [each["text"] for each in found["causes"]] == [
        "E_BOOT · revision=B · from 2.1.0: 12 devices",
        "E_BOOT · revision=B · from 2.0.0: 1 device",
        "no answer · revision=A · from 2.1.0: 1 device",
    ]
    assert found["causes"][0] == {
        "devices": 12,
        "code": "E_BOOT",
        "reason": None,
        "message": None,
        "label": "revision=B",
        "from_version": "2.1.0",
        "text": "E_BOOT · revision=B · from 2.1.0: 12 devices",
    }


@pytest.mark.parametrize(
    ("by", "texts"),
    [
        ("code", ["E_BOOT: 13 devices", "no answer: 1 device"]),
        ("label:revision", ["revision=B: 13 devices", "revision=A: 1 device"]),
        ("label", ["revision=B: 13 devices", "revision=A: 1 device"]),
        ("from_version", ["from 2.1.0: 13 devices", "from 2.0.0: 1 device"]),
        ("code,label:site", ["E_BOOT · no site: 13 devices", "no answer · no site: 1 device"]),
    ],
)
async def test_failures_are_grouped_by_what_the_request_says(
    north: httpx2.AsyncClient, path: str, by: str, texts: list[str]
) -> None:
    found = (await north.get(f"{path}/causes", params={"by": by})).json()
    assert [each["text"] for each in found["causes"]] == texts


@pytest.mark.parametrize("by", ["colour", "", "code,", "label:", "label:a b", "code:x", "code, label"])
async def test_an_unknown_group_is_refused(north: httpx2.AsyncClient, path: str, by: str) -> None:
    problem = assert_problem(await north.get(f"{path}/causes", params={"by": by}), 422, "invalid-input")
    assert problem["errors"][0]["field"] == "by"


async def test_a_limit_leaves_the_smaller_causes_to_others(north: httpx2.AsyncClient, path: str) -> None:
    found = (await north.get(f"{path}/causes", params={"by": "code", "limit": 1})).json()
    assert (len(found["causes"]), found["others"]) == (1, 1)


async def test_the_list_behind_each_cause_has_its_devices(north: httpx2.AsyncClient, path: str) -> None:
    for cause in (await north.get(f"{path}/causes")).json()["causes"]:
        asked = {"status": "FAILED", "label": cause["label"], "from_version": cause["from_version"]}
        asked |= {"code": cause["code"]} if cause["code"] else {"reason": cause["reason"], "code": ""}
        listed = (await north.get(f"{path}/devices", params=asked)).json()
        assert (len(listed["devices"]), listed["total"], listed["next_cursor"]) == (cause["devices"], None, None)


async def listed(client: httpx2.AsyncClient, path: str, **params: Any) -> list[str]:
    """All devices that a filter lists, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = (await client.get(f"{path}/devices", params=params | ({"cursor": cursor} if cursor else {}))).json()
        found += [each["device_id"] for each in page["devices"]]
        if (cursor := page["next_cursor"]) is None:
            return found


@pytest.mark.parametrize("limit", [1, 7, 13, 1000])
async def test_a_filter_by_label_is_paged(north: httpx2.AsyncClient, path: str, limit: int) -> None:
    assert await listed(north, path, label="revision=B", status="FAILED", limit=limit) == BAD
    assert await listed(north, path, code="E_BOOT", limit=limit) == BAD
    assert await listed(north, path, label="revision=", limit=limit) == []


async def test_filtered_devices_are_counted(north: httpx2.AsyncClient, path: str) -> None:
    page = (await north.get(f"{path}/devices", params={"code": "E_BOOT", "status": "FAILED", "limit": 2})).json()
    assert (page["total"], len(page["devices"])) == (13, 2)
    page = (await north.get(f"{path}/devices", params={"reason": "no_answer"})).json()
    assert (page["total"], page["devices"][0]["device_id"]) == (1, A[0])


async def test_devices_are_listed_by_wave(pool: Pool, north: httpx2.AsyncClient, path: str) -> None:
    await pool.execute(
        "UPDATE ota_device_status SET segment = 1, position = (2::bigint << 44) + id WHERE device_id = 'b-001'"
    )
    assert await listed(north, path, wave=1) == ["b-001"]
    assert await listed(north, path, wave=0) == []


async def test_another_tenant_s_campaign_has_no_causes(
    pool: Pool, north: httpx2.AsyncClient, south: httpx2.AsyncClient, path: str
) -> None:
    await pool.execute(f"ALTER SEQUENCE ota_campaigns_id_seq RESTART WITH {number_of(path)}")
    assert await create_campaign(south, *A, *B) == path  # a twin with the same number and the same devices
    await register(south, A + B, version="9.9.9", revision="Z")
    await end(pool, path, B[:2], "FAILED", tenant="south", error_code="E_FLASH", failed_reason="reported")
    ours = (await north.get(f"{path}/causes")).json()
    theirs = (await south.get(f"{path}/causes")).json()
    assert (ours["failed"], theirs["failed"]) == (14, 2)
    assert {each["code"] for each in theirs["causes"]} == {"E_FLASH"}
    assert {each["from_version"] for each in theirs["causes"]} == {"9.9.9"}
    assert_problem(await south.get(f"{CAMPAIGNS}/999/causes"), 404, "not-found")


async def test_many_failures_are_sampled(pool: Pool, north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north, *names("d", 30))
    await end(pool, path, names("d", 30), "FAILED", error_code="E_BOOT", failed_reason="reported")
    await pool.execute(
        "UPDATE ota_device_status SET error_code = 'E_LATE', completed_at = now() + interval '1 hour'"
        " WHERE device_id < 'd-010'"
    )
    async with tenant_transaction(pool, "north") as connection:
        found = await causes.read(connection, "north", number_of(path), By(best_label=False), limit=10)
    assert (found.failed, found.read, found.text) == (30, 10, "of the last 10 of 30 failures")
    assert [each.code for each in found.found] == ["E_LATE"]


async def test_the_page_s_causes_are_kept_until_a_device_fails(pool: Pool, path: str) -> None:
    kept = causes.TopCauses()
    async with tenant_transaction(pool, "north", queues=True) as connection:
        first = await kept.read(connection, "north", number_of(path), failed=14)
        assert first[0].text == "E_BOOT · revision=B · from 2.1.0: 12 devices"
        assert await kept.read(connection, "north", number_of(path), failed=0) == ()
    await end(pool, path, A, "FAILED", error_code="E_FLASH", failed_reason="reported")
    async with tenant_transaction(pool, "north") as connection:
        assert await kept.read(connection, "north", number_of(path), failed=14) == first
    async with tenant_transaction(pool, "north") as connection:
        again = await causes.TopCauses().read(connection, "north", number_of(path), failed=53)
    assert again[0].code == "E_FLASH"


async def test_a_broken_view_of_a_host_leaves_the_codes(pool: Pool, north: httpx2.AsyncClient, path: str) -> None:
    await pool.execute("CREATE VIEW rollwave_devices AS SELECT tenant_id, device_id FROM devices")
    assert_problem(await north.get(f"{path}/causes"), 409, "conflict")
    async with tenant_transaction(pool, "north") as connection:
        found = await causes.TopCauses().read(connection, "north", number_of(path), failed=14)
        assert [each.text for each in found] == ["E_BOOT: 13 devices", "no answer: 1 device"]
        assert await connection.fetchval("SELECT 1") == 1


async def test_the_overview_has_the_first_causes(pool: Pool, north: httpx2.AsyncClient, path: str) -> None:
    await pool.execute("UPDATE ota_campaigns SET pending = 0, failed = 14, succeeded = 46")  # as the engine counts
    found = (await north.get(f"{path}/overview")).json()["causes"]
    assert [each["text"] for each in found] == [
        "E_BOOT · revision=B · from 2.1.0: 12 devices",
        "E_BOOT · revision=B · from 2.0.0: 1 device",
        "no answer · revision=A · from 2.1.0: 1 device",
    ]
    assert found[0]["label"] == "revision=B"


@pytest.mark.parametrize("written", ['"x"', "[1]", "null", '{"number": 1e5000}'])
async def test_attributes_that_other_sql_wrote_are_no_labels(
    north: httpx2.AsyncClient, path: str, pool: Pool, written: str
) -> None:
    """Such as a host whose pool encodes JSON twice."""
    await pool.execute("UPDATE devices SET attributes = $1::text::jsonb", written)
    found = (await north.get(f"{path}/causes")).json()
    assert (found["failed"], found["label"]) == (14, None)
    answer = await north.get(f"{path}/overview")
    assert answer.status_code == 200, answer.text


async def test_one_failure_shows_the_label_of_the_policy_where_the_device_has_it(pool: Pool, path: str) -> None:
    await pool.execute("UPDATE ota_device_status SET status = 'PENDING' WHERE status = 'FAILED'")
    await end(pool, path, A[:1], "FAILED", error_code="E_SPACE", failed_reason="reported")
    for label, text in (
        ("revision", "E_SPACE · revision=A · from 2.1.0: 1 device"),
        ("site", "E_SPACE · from 2.1.0: 1 device"),
        (None, "E_SPACE · from 2.1.0: 1 device"),
    ):
        async with tenant_transaction(pool, "north") as connection:
            kept = causes.TopCauses()
            found = await kept.read(connection, "north", number_of(path), failed=1, of_policy=label)
        assert [each.text for each in found] == [text]
