"""The console's page of a campaign over HTTP: who may see and do what, and what the answers say."""

from __future__ import annotations

import json
import re
from html import unescape

import httpx2
import pytest

from rollwave.console import device_table
from rollwave.console.device_table import DeviceFilter
from rollwave.domain.role import Role
from rollwave.engine import new_campaign, operations
from rollwave.store import access, devices, firmware
from rollwave.store.database import Pool
from rollwave.store.new_campaigns import NewCampaign
from tests.console import signed_in, submit

DEVICES = 12


async def prepare(pool: Pool, count: int = DEVICES, name: str | None = "Spring release") -> str:
    """Create a campaign of the tenant north. Returns the address of its page."""
    await access.create(pool, "north", Role.VIEWER)  # makes the tenant
    await devices.put_group(pool, "north", "pumps", [f"pump-{number:04}" for number in range(count)])
    found = await firmware.register(
        pool,
        "north",
        version="2.4.1",
        file_url="https://files.example/fw",
        checksum_sha256=None,
        file_size_bytes=None,
        device_type=None,
        description=None,
        actor="test",
    )
    new = NewCampaign(name or "", found.row["id"], "pumps")
    campaign_id = await new_campaign.create_campaign(pool, "north", new, actor="test")
    return f"/console/campaigns/{campaign_id}"


async def start(pool: Pool, page: str) -> None:
    await operations.start_campaign(pool, "north", int(page.rpartition("/")[2]), actor="test", role=Role.ADMIN)


async def test_the_page_shows_the_campaign_and_a_viewer_gets_no_button(pool: Pool) -> None:
    page = await prepare(pool)
    for role, may in ((Role.VIEWER, False), (Role.OPERATOR, True)):
        async with signed_in(pool, "north", role) as client:
            shown = await client.get(page)
            assert shown.status_code == 200
            assert "Spring release" in shown.text
            assert "12</a>" in shown.text
            assert (f'action="{page}/start"' in shown.text) is may
            assert ("data-dialog" in shown.text) is may


async def test_start_pause_and_resume_say_what_was_done(pool: Pool) -> None:
    page = await prepare(pool)
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        for action, said in (
            ("start", "Started. 12 devices still to be sent."),
            ("pause", "Paused. Nothing is in progress."),
            ("resume", "Resumed. 12 devices still to be sent."),
        ):
            done = await submit(client, f"{page}/{action}", page)
            assert (done.status_code, done.headers["Location"]) == (303, page)
            assert said in (await client.get(page)).text


async def test_a_question_changes_nothing_and_the_answer_states_what_was_done(pool: Pool) -> None:
    page = await prepare(pool)
    await start(pool, page)
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        question = await client.get(f"{page}/confirm/abort")
        assert "12 devices not sent yet will be skipped." in question.text
        assert "Running" in (await client.get(page)).text
        done = await submit(client, f"{page}/abort", f"{page}/confirm/abort", reason="battery drain", asked="12")
        assert done.status_code == 303
        shown = (await client.get(page)).text
        assert "Aborted. 12 devices skipped." in shown
        assert "battery drain" in shown


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("start", "Resumed. 12 devices still to be sent."),
        ("pause", "Paused. Nothing is in progress."),
        ("abort", "Aborted. 12 devices skipped."),
        ("cancel", "Cancelled. 12 devices skipped."),
        ("retry", "0 failed devices will be tried again."),
        ("promote", "has no policy document"),
    ],
)
async def test_the_brakes_work_though_the_overview_cannot_be_read(pool: Pool, action: str, said: str) -> None:
    page = await prepare(pool)
    await start(pool, page)
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        if action == "start":
            await submit(client, f"{page}/pause", page)
        await pool.execute("ALTER TABLE ota_campaign_points RENAME TO away")
        assert (await client.get(page)).status_code == 500
        if action not in {"start", "pause"}:
            question = await client.get(f"{page}/confirm/{action}?wave=all")
            retries_nothing = action == "retry"
            assert question.status_code == (303 if retries_nothing else 200)
        done = await submit(client, f"{page}/{'resume' if action == 'start' else action}", wave="all")
        assert (done.status_code, done.headers.get("Location")) == (303, page)
        assert said in (await client.get(page)).text


@pytest.mark.parametrize(("action", "status"), [("pause", "PAUSED"), ("abort", "ABORTED"), ("cancel", "ABORTED")])
async def test_the_brakes_work_without_numbers(pool: Pool, action: str, status: str) -> None:
    page = await prepare(pool)
    await start(pool, page)
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        await pool.execute("UPDATE ota_campaigns SET pending = NULL")
        if action != "pause":
            assert "cannot be read now" in (await client.get(f"{page}/confirm/{action}")).text
        assert (await submit(client, f"{page}/{action}")).status_code == 303
        assert "may still finish" in (await client.get(page)).text or action == "cancel"
        assert await pool.fetchval("SELECT status FROM ota_campaigns") == status


async def test_a_question_that_comes_too_late_leads_back_and_says_why(pool: Pool) -> None:
    page = await prepare(pool)
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        await submit(client, f"{page}/abort", f"{page}/confirm/abort")
        late = await client.get(f"{page}/confirm/abort")
        assert (late.status_code, late.headers["Location"]) == (303, page)
        assert "it is ABORTED" in (await client.get(page)).text
        refused = await submit(client, f"{page}/pause", page)
        assert refused.status_code == 303
        assert "Cannot pause campaign" in (await client.get(page)).text


async def test_the_name_must_be_typed_if_more_than_a_thousand_devices_are_affected(pool: Pool) -> None:
    page = await prepare(pool, 1001)
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        refused = await submit(client, f"{page}/abort", f"{page}/confirm/abort", typed="autumn")
        assert refused.status_code == 422
        assert "Type Spring release to confirm." in refused.text
        done = await submit(client, f"{page}/abort", f"{page}/confirm/abort", typed=" SPRING release ")
        assert done.status_code == 303


@pytest.mark.parametrize("action", ["start", "pause", "resume", "abort", "cancel", "retry", "promote", "release"])
async def test_a_viewer_and_a_form_without_a_token_are_refused(pool: Pool, action: str) -> None:
    page = await prepare(pool)
    async with signed_in(pool, "north", Role.VIEWER) as client:
        refused = await submit(client, f"{page}/{action}", page, wave="all", segment="1")
        assert refused.status_code == 403
        assert "This needs the role operator; your key is a viewer." in refused.text
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        assert (await client.post(f"{page}/{action}", data={"wave": "all", "segment": "1"})).status_code == 403
        assert "Created" in (await client.get(page)).text


@pytest.mark.parametrize(
    "part",
    ["", "/timeline", "/field", "/field/0", "/devices.csv", "/devices.json", "/policy", "/confirm/abort", "/live"],
)
async def test_another_tenant_finds_no_such_campaign(pool: Pool, part: str) -> None:
    page = await prepare(pool)
    async with signed_in(pool, "south", Role.ADMIN) as client:
        assert (await client.get(f"{page}{part}")).status_code == 404


async def test_the_devices_are_filtered_and_read_page_by_page(pool: Pool) -> None:
    page = await prepare(pool, 25)
    async with signed_in(pool, "north", Role.VIEWER) as client:
        part = await client.get(page, params={"status": "PENDING"}, headers={"X-Fragment": "devices"})
        assert part.text.count("/console/devices/pump-") == 20
        assert "<html" not in part.text
        rest = await client.get(
            page, params={"status": "PENDING", "cursor": "pump-0019"}, headers={"X-Fragment": "devices"}
        )
        assert rest.text.count("/console/devices/pump-") == 5
        nothing = await client.get(page, params={"status": "FAILED", "code": "E_BOOT"})
        assert "No device matches." in nothing.text
        assert (await client.get(page, params={"status": "NO_SUCH"})).status_code == 422


async def test_what_scripts_read(pool: Pool) -> None:
    page = await prepare(pool)
    await start(pool, page)
    async with signed_in(pool, "north", Role.VIEWER) as client:
        field: httpx2.Response = await client.get(f"{page}/field")
        assert (field.content, field.headers["Content-Type"]) == (bytes(DEVICES), "application/octet-stream")
        assert (await client.get(f"{page}/field/3")).json()["status"] == "PENDING"
        assert set((await client.get(f"{page}/timeline")).json()) >= {"points", "plan", "forecast", "markers"}
        panels = (await client.get(f"{page}/live/panels")).json()
        assert {"head", "verdict", "statebar", "waves", "guardrails", "waiting", "events"} <= set(panels["panels"])
        rows = (await client.get(f"{page}/devices.csv")).text.splitlines()
        assert len(rows) == 1 + DEVICES
        assert len(json.loads((await client.get(f"{page}/devices.json")).text)) == DEVICES
        shown = (await client.get(f"{page}/policy")).text
        assert "version: 1\norder: id\n" in shown
        assert "\\n" not in shown


async def test_pages_are_compressed_for_those_who_take_it(pool: Pool) -> None:
    page = await prepare(pool)
    async with signed_in(pool, "north", Role.VIEWER) as client:
        for accepted, sent in (("gzip", "gzip"), ("identity", None)):
            shown = await client.get(page, headers={"Accept-Encoding": accepted})
            assert shown.headers.get("Content-Encoding") == sent
            assert "Spring release" in shown.text


async def test_the_device_table_shows_versions_and_the_labels_of_the_causes(pool: Pool) -> None:
    page = await prepare(pool)
    await devices.put_device(
        *(pool, "north", "pump-0000"),
        device_type=None,
        attributes={"revision": "rev-A7"},
        fields_beside=devices.Fields(version="2.2.0-old", keeps_version=False),
    )
    overview = {
        "campaign_id": int(page.rpartition("/")[2]),
        "causes": [{"label": "revision=A"}, {"label": None}, {"label": "site="}],
        "segments": [{"number": 1, "labels": {"revision": "B", "line": "1"}}],
        "waves": [],
    }
    shown = await device_table.read(pool, "north", overview, DeviceFilter(), cursor=None)
    assert shown["labels"] == ["revision", "site"]
    assert (shown["rows"][0]["version"], shown["rows"][0]["labels"]) == ("2.2.0-old", ["rev-A7", None])
    async with signed_in(pool, "north", Role.VIEWER) as client:
        assert "<td>2.2.0-old</td>" in (await client.get(page)).text
    await pool.execute("CREATE VIEW rollwave_devices AS SELECT tenant_id, device_id FROM devices")
    shown = await device_table.read(pool, "north", overview, DeviceFilter(), cursor=None)
    assert (shown["labels"], len(shown["rows"])) == ([], DEVICES)


async def test_a_page_without_a_device_leads_on_to_the_rest_of_a_large_campaign(pool: Pool) -> None:
    """A page of a label looks at 10,000 devices. Those after them may have it."""
    page = await prepare(pool)
    await pool.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)"
        " SELECT 'north', $1, 'a-' || number FROM generate_series(1, 10000) AS number",
        int(page.rpartition("/")[2]),
    )
    await devices.put_device(pool, "north", "pump-0003", device_type=None, attributes={"site": "z"})
    async with signed_in(pool, "north", Role.VIEWER) as client:
        shown = (await client.get(page, params={"label": "site=z"})).text
        assert "No device matches" not in shown
        [further] = re.findall(r'href="([^"]+)#devices"[^>]*>Look further', shown)
        assert "/console/devices/pump-0003" in (await client.get(unescape(further))).text
