"""The console's pages of devices, groups, firmware and search over HTTP."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import httpx2
import pytest

from rollwave.console.downloads import PAGE, Reader, download
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.role import Role
from rollwave.engine import new_campaign, operations
from rollwave.errors import Forbidden
from rollwave.store import access, devices, firmware
from rollwave.store.access import Grant
from rollwave.store.database import Pool
from rollwave.store.new_campaigns import NewCampaign
from rollwave.store.page import Page
from tests.console import signed_in, submit
from tests.engine import subscribed_listener

HOSTILE = "<script>alert(1)<"
ESCAPES = "\x1b[31mred\u202e"


@pytest.fixture
async def operator(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        yield client


async def register(pool: Pool, tenant: str = "north") -> None:
    """Devices of two sites, one with text that a page must not run."""
    await access.create(pool, tenant, Role.VIEWER)  # which registers the tenant
    described = {f"pump-{number:03}": devices.Description("pump", {"site": "ab"[number % 2]}) for number in range(130)}
    described[HOSTILE] = devices.Description("<i>valve</i>", {"note": ESCAPES, "n": 7, "<b>key</b>": "<u>v</u>"})
    await devices.put_group(pool, tenant, "pumps", [], described)
    fields = devices.Fields("Europe/Zurich", "2.1.0", keeps_version=False)
    for device_id in ("pump-001", "pump-002"):
        await devices.put_device(pool, tenant, device_id, device_type="pump", attributes={}, fields_beside=fields)


async def running_campaign(
    pool: Pool, name: str = "spring", tenant: str = "north", policy: PolicyDocument | None = None
) -> int:
    """A started campaign over the devices. No engine runs, so they wait."""
    found = await firmware.register(
        pool,
        tenant,
        version="2.4.1",
        file_url="https://files.example/fw",
        checksum_sha256=None,
        file_size_bytes=None,
        device_type=None,
        description=None,
        actor="test",
    )
    new = NewCampaign(name, found.row["id"], "pumps")
    campaign_id = await new_campaign.create_campaign(pool, tenant, new, actor="test", policy=policy)
    await operations.start_campaign(pool, tenant, campaign_id, actor="test", role=Role.ADMIN)
    return campaign_id


def rows(shown: httpx2.Response) -> list[str]:
    """The texts of the first cells of the page's tables."""
    cells = re.findall(r'<th scope="row"[^>]*>(.*?)</th>', shown.text, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", each).strip() for each in cells]


async def test_the_list_of_devices_is_paged_and_narrowed_by_the_address(
    pool: Pool, operator: httpx2.AsyncClient
) -> None:
    assert "No devices yet." in (await operator.get("/console/devices")).text
    await register(pool)
    shown = await operator.get("/console/devices")
    assert "131 devices" in shown.text
    assert len(rows(shown)) == 100
    following = re.search(r'href="([^"]+)" rel="next"', shown.text)
    assert following
    rest = await operator.get(following[1])
    assert len(rows(rest)) == 31
    assert 'rel="next"' not in rest.text
    by_version = await operator.get("/console/devices?version=2.1.0")
    assert rows(by_version) == ["pump-001", "pump-002"]
    narrowed = await operator.get("/console/devices?" + urlencode({"select": "site == a", "version": "2.1.0"}))
    assert "No device matches." in narrowed.text
    assert "Clear filters" in narrowed.text
    by_type = await operator.get("/console/devices?device_type=pump")
    assert "130 devices" in by_type.text


async def test_a_wrong_selector_is_explained_beside_its_field(operator: httpx2.AsyncClient) -> None:
    shown = await operator.get("/console/devices?" + urlencode({"select": 'site = "a'}))
    assert shown.status_code == 422
    assert 'aria-invalid="true"' in shown.text
    assert "column" in shown.text
    assert 'value="site = &#34;a"' in shown.text


async def test_text_from_devices_is_shown_as_text(pool: Pool, operator: httpx2.AsyncClient) -> None:
    await register(pool)
    campaign = await running_campaign(pool, name="<script>alert(2)</script>")
    for address in ("/console/devices", "/console/devices/%3Cscript%3Ealert(1)%3C", "/console/search?q=%3Cscript"):
        shown = await operator.get(address)
        assert shown.status_code == 200, address
        assert "<script>alert" not in shown.text
        assert "&lt;script&gt;alert" in shown.text
        assert "\x1b" not in shown.text
        assert "\u202e" not in shown.text
    page = (await operator.get("/console/devices/%3Cscript%3Ealert(1)%3C")).text
    assert "\\x1b[31mred\\u202e" in page
    assert "&lt;u&gt;v&lt;/u&gt;" in page
    assert f"/console/campaigns/{campaign}" in page


async def test_downloads_have_all_rows_and_formulas_are_text(pool: Pool, operator: httpx2.AsyncClient) -> None:
    await register(pool)
    await devices.put_device(pool, "north", "=1+1", device_type="-x", attributes={"site": "a"})
    answer = await operator.get("/console/devices.csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="devices-{today}.csv"'
    written = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(written) == 132
    assert {"'=1+1"} == {row["device_id"] for row in written if "1+1" in row["device_id"]}
    assert {row["device_id"]: row["label.site"] for row in written}["pump-003"] == "b"
    older = await operator.get("/console/devices.json?version=2.1.0")
    assert older.headers["Content-Disposition"] == f'attachment; filename="devices-2.1.0-{today}.json"'
    found = json.loads(older.text)
    assert [row["device_id"] for row in found] == ["pump-001", "pump-002"]
    assert found[0]["version"] == "2.1.0"
    members = list(csv.DictReader(io.StringIO((await operator.get("/console/groups/pumps/devices.csv")).text)))
    assert len(members) == 131
    assert (await operator.get("/console/devices.csv?" + urlencode({"select": "a =="}))).status_code == 422


async def test_a_download_is_broken_off_after_its_key_is_revoked(pool: Pool) -> None:
    _, tenant, key_id, _ = (await access.create(pool, "north", Role.VIEWER)).split(".")
    await devices.put_group(pool, "north", "pumps", [f"pump-{number:05}" for number in range(3 * PAGE)])

    async def read(cursor: str | None) -> Page:
        return (await devices.get_group(pool, "north", "pumps", limit=PAGE, cursor=cursor)).members

    reader = Reader(pool, Grant(tenant, key_id, Role.VIEWER), key_seconds=0)
    file = aiter((await download("csv", ("group",), ("device_id",), read, reader)).body_iterator)
    written = [await anext(file) for _ in range(3)]
    assert f"pump-{PAGE:05}" in str(written[2])
    await access.revoke(pool, "north", key_id)
    with pytest.raises(Forbidden):
        await anext(file)


async def test_a_device_page_says_why_the_device_waits(pool: Pool, operator: httpx2.AsyncClient) -> None:
    await register(pool)
    shown = await operator.get("/console/devices/pump-001")
    assert "It is in no campaign." in shown.text
    assert "Europe/Zurich" in shown.text
    assert "pumps" in shown.text
    campaign = await running_campaign(pool)
    shown = await operator.get("/console/devices/pump-001")
    assert f'Why it waits in <a href="/console/campaigns/{campaign}">spring</a>' in shown.text
    assert "No listener is subscribed" in shown.text
    assert "never sent to" in shown.text
    assert re.search(r"<details[^>]*><summary>All other checks are open", shown.text)
    await operations.abort_campaign(pool, "north", campaign, actor="test", reason=None)
    shown = await operator.get("/console/devices/pump-001")
    assert "Why it waits" not in shown.text
    assert "skipped" in shown.text


async def test_a_device_that_waits_in_several_campaigns_has_all_of_them_in_the_order_of_sending(
    pool: Pool, operator: httpx2.AsyncClient
) -> None:
    await register(pool)
    first = await running_campaign(pool)
    assert "unfinished campaigns" not in (await operator.get("/console/devices/pump-001")).text
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    policy = PolicyDocument.model_validate({"schedule": {"start": later}})
    await running_campaign(pool, "summer", policy=policy)
    async with subscribed_listener(pool):
        shown = (await operator.get("/console/devices/pump-001")).text
    summary = shown.partition("In 2 unfinished campaigns")[2].partition("</section>")[0]
    now, at_last = summary.split("</li>")[:2]
    assert f'href="#why-{first}">spring' in now
    assert "may be sent to now" in now
    assert "summer" in at_last
    assert "not before <time" in at_last


async def test_objects_of_another_tenant_do_not_exist(pool: Pool, operator: httpx2.AsyncClient) -> None:
    await register(pool, "south")
    await running_campaign(pool, tenant="south")
    for address in (
        "/console/devices/pump-001",
        "/console/groups/pumps",
        "/console/groups/pumps/devices.csv",
        "/console/firmware/1/delete",
    ):
        shown = await operator.get(address)
        assert shown.status_code == 404, address
        assert shown.headers["Content-Type"].startswith("text/html")
    assert "No devices yet." in (await operator.get("/console/devices")).text
    assert "No groups yet." in (await operator.get("/console/groups")).text
    assert "No firmware yet." in (await operator.get("/console/firmware")).text
    assert "Nothing found" in (await operator.get("/console/search?q=pump")).text


async def test_groups_are_listed_with_their_devices(pool: Pool, operator: httpx2.AsyncClient) -> None:
    await register(pool)
    await devices.put_group(pool, "north", "empty", [])
    shown = await operator.get("/console/groups")
    assert rows(shown) == ["empty", "pumps"]
    assert "New campaign" in shown.text
    group = await operator.get("/console/groups/pumps")
    assert len(rows(group)) == 100
    assert "131 devices" in group.text
    assert "The group is empty." in (await operator.get("/console/groups/empty")).text
    assert (await operator.get("/console/groups/none")).status_code == 404


async def test_firmware_is_registered_and_deleted(operator: httpx2.AsyncClient) -> None:
    page = "/console/firmware/new"
    wrong = await submit(operator, page, page, version="2.0", file_url="ftp://x", checksum_sha256="ab")
    assert wrong.status_code == 422
    assert 'id="d-file_url"' in wrong.text
    assert "64 hex digits" in wrong.text
    assert 'value="2.0"' in wrong.text
    given = {"version": "2.0", "file_url": "https://files.example/a", "checksum_sha256": "sha256:" + "AB" * 32}
    given["file_size_bytes"] = "3400000"
    done = await submit(operator, page, page, **given)
    assert (done.status_code, done.headers["Location"]) == (303, "/console/firmware")
    shown = await operator.get("/console/firmware")
    assert "Firmware 2.0 is registered." in shown.text
    assert "ab" * 6 in shown.text
    assert "3.4 MB" in shown.text
    conflict = await submit(operator, page, page, **{**given, "file_url": "https://files.example/b"})
    assert conflict.status_code == 409
    assert "registered already" in conflict.text
    address = re.search(r'href="(/console/firmware/\d+/delete)"', shown.text)
    assert address
    question = await operator.get(address[1])
    assert "Delete firmware 2.0" in question.text
    assert (await submit(operator, address[1], address[1])).status_code == 303
    assert "No firmware yet." in (await operator.get("/console/firmware")).text
    assert "No firmware matches." in (await operator.get("/console/firmware?device_type=valve")).text


async def test_a_viewer_sees_no_buttons_and_may_change_nothing(pool: Pool) -> None:
    await register(pool)
    await running_campaign(pool)
    async with signed_in(pool, "north", Role.VIEWER) as viewer:
        for address in ("/console/devices", "/console/groups", "/console/groups/pumps", "/console/firmware"):
            shown = await viewer.get(address)
            assert shown.status_code == 200
            assert "New campaign" not in shown.text
            assert "Register" not in re.sub(r"Registered", "", shown.text)
            assert "Delete" not in shown.text
        for address in ("/console/firmware/new", "/console/firmware/1/delete", "/console/campaigns/new"):
            shown = await viewer.get(address)
            assert shown.status_code == 403
            assert "This needs the role operator; your key is a viewer." in shown.text
        answer = await submit(viewer, "/console/firmware/new", version="1", file_url="https://x.example/a")
        assert answer.status_code == 403


async def test_search_finds_by_the_beginning_of_ids(pool: Pool, operator: httpx2.AsyncClient) -> None:
    await register(pool)
    campaign = await running_campaign(pool)
    assert "the beginning of their ids" in (await operator.get("/console/search")).text
    shown = (await operator.get("/console/search?q=pump-010")).text
    exact = shown.partition("Exact match")[2].partition("</section>")[0]
    assert "/console/devices/pump-010" in exact
    assert "version not reported" in exact
    assert "chip" in exact
    shown = (await operator.get("/console/search?q=pump-01")).text
    assert "Exact match" not in shown
    assert "/console/devices/pump-010" in shown
    assert f"/console/campaigns/{campaign}" in (await operator.get("/console/search?q=spri")).text
    assert "/console/devices?version=2.4.1" in (await operator.get("/console/search?q=2.4")).text
