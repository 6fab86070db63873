"""The console's pages of brakes, unreadable messages, keys and the system over HTTP."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from rollwave.domain.role import Role
from rollwave.engine import new_campaign, operations
from rollwave.settings import Settings
from rollwave.store import access, brakes, devices, firmware, quarantine
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.new_campaigns import NewCampaign
from rollwave.store.quarantine import Sample
from tests.console import log_in, signed_in, submit, visiting

SCRIPT = "<script>alert(1)</script>"


async def start_campaign(pool: Pool, *, rate: int = 100) -> None:
    await devices.put_group(pool, "north", "pumps", ["a", "b"])
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
    new = NewCampaign("spring", found.row["id"], "pumps", rollout_rate=rate)
    campaign_id = await new_campaign.create_campaign(pool, "north", new, actor="test")
    await operations.start_campaign(pool, "north", campaign_id, actor="test", role=Role.ADMIN)


async def test_all_sending_is_halted_and_the_halt_is_lifted(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.OPERATOR, name="night shift")
    async with signed_in(pool, "north", Role.OPERATOR, key=key) as operator:
        await start_campaign(pool)
        shown = await operator.get("/console/brakes")
        assert "1 campaign runs, 0 devices in progress." in shown.text
        question = await operator.get("/console/brakes/halt")
        assert "Halt all sending of tenant north?" in question.text
        assert "Nothing is sent in 1 running campaign until someone lifts the halt." in question.text
        assert (await brakes.halt_of(pool, "north")) is None  # asking halts nothing
        done = await submit(operator, "/console/brakes/halt", "/console/brakes/halt", reason=SCRIPT)
        assert (done.status_code, done.headers["Location"]) == (303, "/console/brakes")
        halt = await brakes.halt_of(pool, "north")
        assert halt is not None
        assert halt.reason == SCRIPT
        shown = await operator.get("/console/brakes")
        assert "All sending of tenant north is halted" in shown.text
        assert "<dt>Halted by</dt><dd>night shift</dd>" in shown.text
        assert "nothing is sent in 1 running campaign until the halt is lifted" in shown.text  # what was done
        assert "&lt;script&gt;alert(1)" in shown.text
        assert "<script>alert" not in shown.text
        question = await operator.get("/console/brakes/lift")
        assert "1 campaign sends again, up to 600 devices a minute." in question.text
        await submit(operator, "/console/brakes/lift", "/console/brakes/lift")
        assert (await brakes.halt_of(pool, "north")) is None
        again = await submit(operator, "/console/brakes/lift", "/console/brakes/lift")
        assert again.status_code == 303
        assert "Sending was not halted." in (await operator.get("/console/brakes")).text


async def test_each_page_says_that_sending_is_halted_or_frozen(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.OPERATOR, name="night shift")
    now = datetime.now(UTC)
    async with signed_in(pool, "north", Role.OPERATOR, key=key) as operator, signed_in(pool, "south") as other:
        assert "Lift the halt" not in (await operator.get("/console/devices")).text
        await submit(operator, "/console/brakes/halt", "/console/brakes/halt", reason=SCRIPT)
        await brakes.add_freeze(
            pool, "north", "sale", now - timedelta(hours=1), now + timedelta(hours=1), actor="test", reason=None
        )
        for address in ("/console/campaigns", "/console/devices", "/console/keys", "/console/search?q=x"):
            shown = (await operator.get(address)).text
            assert "All sending is halted since" in shown
            assert "by night shift: &lt;script&gt;" in shown
            assert "Freeze <q>sale</q> stops sending until" in shown
            assert 'href="/console/brakes/lift"' in shown
            assert "is halted" not in (await other.get(address)).text
        changed = (await operator.get("/console/brakes")).text.partition("Last changes")[2]
        assert changed.index("Added the freeze sale") < changed.index("Halted")  # the newest first


async def test_a_halt_without_a_reason_has_the_prefilled_one(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.OPERATOR, name="night shift")
    async with signed_in(pool, "north", Role.OPERATOR, key=key) as operator:
        await submit(operator, "/console/brakes/halt", "/console/brakes/halt", reason="")
        halt = await brakes.halt_of(pool, "north")
        assert halt is not None
        assert halt.reason == "Halted by night shift at the console"


async def test_freezes_are_added_and_removed(pool: Pool) -> None:
    page = "/console/brakes"
    async with signed_in(pool, "north", Role.OPERATOR) as operator:
        assert "No freezes." in (await operator.get(page)).text
        given = {"name": "year-end", "start": "2090-12-18T00:00", "end": "2091-01-07T00:00", "reason": SCRIPT}
        wrong = await submit(operator, f"{page}/freezes", page, **{**given, "end": "2090-12-01T00:00"})
        assert wrong.status_code == 422
        assert 'id="d-end"' in wrong.text
        assert "Must be after start" in wrong.text
        assert 'value="year-end"' in wrong.text
        assert (await submit(operator, f"{page}/freezes", page, name="a b")).status_code == 422
        assert (await submit(operator, f"{page}/freezes", page, **given)).status_code == 303
        shown = await operator.get(page)
        assert "2090-12-18 00:00:00 UTC" in shown.text
        assert "planned" in shown.text
        assert "<script>alert" not in shown.text
        twice = await submit(operator, f"{page}/freezes", page, **given)
        assert twice.status_code == 409
        assert "There is a freeze year-end" in twice.text
        question = await operator.get(f"{page}/freezes/year-end/remove")
        assert "Remove the freeze year-end?" in question.text
        await submit(operator, f"{page}/freezes/year-end/remove", page)
        assert "No freezes." in (await operator.get(page)).text
        assert (await submit(operator, f"{page}/freezes/year-end/remove", page)).status_code == 404


async def test_brakes_of_another_tenant_are_not_shown_and_stay(pool: Pool) -> None:
    await access.create(pool, "south", Role.VIEWER)
    await brakes.halt(pool, "south", actor="test", reason="secret")
    async with signed_in(pool, "north", Role.OPERATOR) as operator:
        shown = await operator.get("/console/brakes")
        assert "Nothing is halted." in shown.text
        assert "secret" not in shown.text
        await submit(operator, "/console/brakes/lift", "/console/brakes/lift")
    assert await brakes.halt_of(pool, "south") is not None


async def keep_messages(pool: Pool, tenant: str, number: int = 0) -> None:
    samples = [
        Sample("pump-1", "not a JSON object", f"{SCRIPT}\x1b[31m".encode()),
        Sample("pump-2", "not UTF-8", b"\xff\xfe"),
        Sample("pump-3", "too long", b"x" * 9000),
        Sample("pump-4", "empty", b""),
        *(Sample(f"many-{each}", "not a JSON object", b"?") for each in range(number)),
    ]
    async with tenant_transaction(pool, tenant) as connection:
        await quarantine.keep(connection, tenant, samples)


async def test_unreadable_messages_are_shown_as_text_and_deleted(pool: Pool) -> None:
    page = "/console/quarantine"
    async with signed_in(pool, "north", Role.OPERATOR) as operator:
        assert "No unreadable messages." in (await operator.get(page)).text
        await keep_messages(pool, "north")
        shown = await operator.get(page)
        assert "<h1>Unreadable messages</h1>" in shown.text
        assert "4 messages" in shown.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m" in shown.text
        assert "<script>alert" not in shown.text
        assert "\x1b" not in shown.text
        assert "0xfffe" in shown.text
        assert "(cut)" in shown.text
        question = await operator.get(f"{page}/clear")
        assert "4 messages of tenant north are deleted." in question.text
        assert "4 messages" in (await operator.get(page)).text
        await submit(operator, f"{page}/clear", page)
        assert "4 messages deleted." in (await operator.get(page)).text


async def test_unreadable_messages_are_paged_newest_first(pool: Pool) -> None:
    async with signed_in(pool, "north", Role.VIEWER) as viewer:
        await keep_messages(pool, "north", number=60)
        first = await viewer.get("/console/quarantine")
        assert "Delete all" not in first.text
        assert first.text.count('<th scope="row">') == 50
        following = re.search(r'href="([^"]+)" rel="next"', first.text)
        assert following
        rest = await viewer.get(following[1])
        assert rest.text.count('<th scope="row">') == 14
        assert "pump-1" in rest.text
        assert "pump-1<" not in first.text
        assert 'rel="next"' not in rest.text
    async with signed_in(pool, "south", Role.VIEWER) as viewer:
        assert "No unreadable messages." in (await viewer.get("/console/quarantine")).text


async def test_a_key_is_created_shown_once_and_revoked(pool: Pool) -> None:
    page = "/console/keys"
    async with signed_in(pool, "north", Role.ADMIN) as admin:
        wrong = await submit(admin, page, page, role="king", name="x" * 300, days="0")
        assert wrong.status_code == 422
        for field in ("role", "name", "days"):
            assert f'id="d-{field}"' in wrong.text
        made = await submit(admin, page, page, role="operator", name=SCRIPT, days="30")
        assert made.status_code == 201
        assert made.headers["Cache-Control"] == "no-store"
        found = re.search(r'value="(rollwave\.north\.[0-9a-f]{16}\.[^"]+)"', made.text)
        assert found
        key = found[1]
        shown = await admin.get(page)
        assert key not in shown.text
        assert "&lt;script&gt;" in shown.text
        assert "<script>alert" not in shown.text
        key_id = key.rsplit(".", 2)[1]
        assert (await access.verify(pool, key)) is not None
        question = await admin.get(f"{page}/{key_id}/revoke")
        assert f"Revoke the key {key_id}?" in question.text
        assert (await access.verify(pool, key)) is not None
        await submit(admin, f"{page}/{key_id}/revoke", page)
        assert await access.verify(pool, key) is None
        assert "revoked" in (await admin.get(page)).text


async def test_whoever_revokes_their_own_key_is_signed_out(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.ADMIN)
    key_id = key.rsplit(".", 2)[1]
    async with visiting(pool) as admin:
        await log_in(admin, key)
        page = f"/console/keys/{key_id}/revoke"
        assert "you are signed out" in (await admin.get(page)).text
        assert (await submit(admin, page, page)).status_code == 303
        answer = await admin.get("/console/keys")
        assert answer.status_code == 303
        assert "/console/login" in answer.headers["Location"]


async def test_keys_are_for_admins_of_the_tenant(pool: Pool) -> None:
    theirs = (await access.create(pool, "south", Role.ADMIN)).rsplit(".", 2)[1]
    async with signed_in(pool, "north", Role.APPROVER) as approver:
        shown = await approver.get("/console/keys")
        assert shown.status_code == 403
        assert "This needs the role admin; your key is an approver." in shown.text
        answer = await submit(approver, "/console/keys", role="admin")
        assert answer.status_code == 403
    async with signed_in(pool, "north", Role.ADMIN) as admin:
        assert theirs not in (await admin.get("/console/keys")).text
        for method in (admin.get, lambda path: submit(admin, path, "/console/keys")):
            assert (await method(f"/console/keys/{theirs}/revoke")).status_code == 404
    assert [key.revoked_at for key in await access.list_keys(pool, "south")] == [None]


async def test_an_expired_key_is_listed_as_such(pool: Pool) -> None:
    async with signed_in(pool, "north", Role.ADMIN) as admin:
        await access.create(pool, "north", Role.VIEWER, name="short", expires_in=timedelta(microseconds=1))
        assert "expired" in (await admin.get("/console/keys")).text


async def test_the_system_page_shows_settings_to_admins_and_no_secrets(pool: Pool) -> None:
    settings = Settings(
        mqtt_broker_url="mqtts://engine:geheim@broker.example:8883", mqtt_password="geheim", tick_interval=5
    )
    key = await access.create(pool, "north", Role.ADMIN)
    async with visiting(pool, settings=settings) as admin:
        await log_in(admin, key)
        shown = await admin.get("/console/system")
        assert "PostgreSQL answers" in shown.text
        assert "0 of 1 have a listener" in shown.text
        assert "mqtts://broker.example:8883" in shown.text
        assert re.search(r"OTA_TICK_INTERVAL</th><td[^>]*>5<", shown.text)
        assert "geheim" not in shown.text
        assert re.search(r"MQTT_PASSWORD</th><td[^>]*>set<", shown.text)
    async with signed_in(pool, "north", Role.OPERATOR) as operator:
        shown = await operator.get("/console/system")
        assert "PostgreSQL answers" in shown.text
        assert "OTA_TICK_INTERVAL" not in shown.text
        assert "This needs the role admin; your key is an operator." in shown.text


async def test_the_system_page_keeps_what_concerns_other_tenants(pool: Pool) -> None:
    async with signed_in(pool, "north", Role.ADMIN) as admin:
        alone = (await admin.get("/console/system")).text
        await access.create(pool, "south", Role.ADMIN)
        shared = (await admin.get("/console/system")).text
    for text in ("OTA_TICK_INTERVAL", "Campaigns due"):
        assert text in alone
        assert text not in shared
    assert "PostgreSQL answers" in shared


@pytest.mark.parametrize("address", ["/console/brakes", "/console/quarantine"])
async def test_a_viewer_sees_no_buttons(pool: Pool, address: str) -> None:
    async with signed_in(pool, "north", Role.VIEWER) as viewer:
        await keep_messages(pool, "north")
        shown = (await viewer.get(address)).text.partition('id="main"')[2]
        assert "<button" not in shown
        assert 'class="button' not in shown


@pytest.mark.parametrize(
    "action",
    [
        "/console/brakes/halt",
        "/console/brakes/lift",
        "/console/brakes/freezes",
        "/console/brakes/freezes/a/remove",
        "/console/quarantine/clear",
    ],
)
async def test_a_viewer_may_change_nothing_and_a_form_needs_its_token(pool: Pool, action: str) -> None:
    async with signed_in(pool, "north", Role.VIEWER) as viewer:
        refused = await submit(viewer, action, "/console/brakes", reason="x")
        assert refused.status_code == 403
        assert "This needs the role operator; your key is a viewer." in refused.text
    async with signed_in(pool, "north", Role.OPERATOR) as operator:
        forged: httpx2.Response = await operator.post(action, data={"reason": "x"})
        assert forged.status_code == 403
        assert "out of date" in forged.text
    assert await brakes.halt_of(pool, "north") is None
