"""The console's form for a new campaign over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.problems import parse
from rollwave.domain.policy.document.text import Format
from rollwave.domain.role import Role
from rollwave.engine import policies
from rollwave.settings import Settings
from rollwave.store import access, devices, firmware, stored_policies, views
from rollwave.store.database import Pool, tenant_transaction
from tests.console import signed_in, token

PAGE = "/console/campaigns/new"
TWO_GUARDRAILS = "guardrails: [{name: a, threshold: 1%}, {name: b, threshold: 2%}]"
NIGHT = {
    "window": "window",
    "window_from": "22:00",
    "window_until": "04:00",
    "window_cutoff": "30m",
    "time_zone": "Europe/Zurich",
    "own_zone": "on",
}


@pytest.fixture
async def operator(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with signed_in(pool, "north", Role.OPERATOR) as client:
        await prepare(pool, "north")
        yield client


async def prepare(pool: Pool, tenant: str) -> int:
    """A group of 100 devices, and firmware for it. Returns the firmware's id."""
    await access.create(pool, tenant, Role.VIEWER)  # which registers the tenant
    await devices.put_group(pool, tenant, "pumps", [f"pump-{number:03}" for number in range(100)])
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
    firmware_id: int = found.row["id"]
    return firmware_id


async def campaigns(pool: Pool) -> list[dict[str, Any]]:
    """The campaigns of the tenant, newest first."""
    async with tenant_transaction(pool, "north") as connection:
        return (await views.campaigns(connection, "north", status=None, limit=10)).rows


async def policy_of(pool: Pool, campaign_id: int) -> dict[str, Any]:
    """The document that a campaign follows."""
    found = (await policies.read_policy(pool, Settings(), "north", campaign_id)).data
    assert isinstance(found, dict)
    return found


def fields_of(shown: httpx2.Response) -> dict[str, str]:
    """What a browser would send of the page's form: the values of its fields and of what is chosen in it."""
    form = shown.text.partition('class="cols cols-2-1 new-campaign"')[2]
    found = {}
    for tag in re.findall(r"<input[^>]*>", form):
        attributes = dict(re.findall(r'([a-z_-]+)="([^"]*)"', tag))
        if attributes.get("type") not in {"checkbox", "radio"} or " checked" in tag:
            found[attributes["name"]] = attributes.get("value", "")
    for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected', options)
        found[name] = chosen[1] if chosen else ""
    for name, text in re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        found[name] = text.replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    found.pop("csrf_token", None)
    return found


async def filled(client: httpx2.AsyncClient, **changes: str) -> dict[str, str]:
    """The form as a person has filled it in."""
    shown = await client.get(PAGE)
    chosen = re.search(r'<option value="(\d+)">2\.4\.1', shown.text)
    about = {"name": "Spring release", "group": "pumps", "firmware": chosen[1] if chosen else ""}
    return fields_of(shown) | about | changes


async def send(client: httpx2.AsyncClient, action: str, fields: dict[str, str]) -> httpx2.Response:
    shown = await client.get(PAGE)
    headers = {"Referer": f"http://test{PAGE}"}
    return await client.post(PAGE, data={"csrf_token": token(shown), "do": action, **fields}, headers=headers)


async def test_a_canary_with_a_night_window_is_previewed_and_created(pool: Pool, operator: httpx2.AsyncClient) -> None:
    form = await filled(operator, **NIGHT)
    shown = await send(operator, "preview", form)
    assert shown.status_code == 200, shown.text
    preview = shown.text.partition('id="preview"')[2]
    assert "At most 14 devices are sent to before a guardrail can act." not in preview  # the canary has 5
    assert re.search(r"At most \d+ devices are sent to", preview)
    assert re.search(r'canary</th><td class="num">5<', preview)
    assert re.search(r'rest</th><td class="num">95<', preview)
    assert preview.count("<time") == 10  # five openings, from and to
    assert "For devices without a time zone, which count as in Europe/Zurich" in preview
    assert await campaigns(pool) == []
    created = await send(operator, "create", fields_of(shown))
    assert created.status_code == 303
    found = await campaigns(pool)
    assert created.headers["Location"] == f"/console/campaigns/{found[0]['id']}"
    assert (found[0]["name"], found[0]["status"], found[0]["total_devices"]) == ("Spring release", "CREATED", 100)
    stored = await policy_of(pool, found[0]["id"])
    assert stored["schedule"] == {
        "time_zone": "Europe/Zurich",
        "windows": [
            {
                "name": "window",
                "kind": "allow",
                "cron": "0 22 * * *",
                "duration": "6h",
                "cutoff": "30m",
                "time_zone": "device",
            }
        ],
    }


async def test_a_window_is_in_one_time_zone_unless_a_person_chooses_otherwise(
    pool: Pool, operator: httpx2.AsyncClient
) -> None:
    untouched = {"window": "window", "window_from": "01:00", "window_until": "05:00"}
    shown = await send(operator, "preview", await filled(operator, **untouched))
    assert "For all devices, in UTC" in shown.text
    assert re.search(r"If it is started now:</strong> (The window is open until|Nothing is sent before)", shown.text)
    assert 'name="own_zone" value="" checked' in shown.text
    created = await send(operator, "create", fields_of(shown))
    stored = await policy_of(pool, int(created.headers["Location"].rpartition("/")[2]))
    assert "time_zone" not in stored["schedule"]["windows"][0]


async def test_a_form_that_is_sent_twice_creates_one_campaign(pool: Pool, operator: httpx2.AsyncClient) -> None:
    form = await filled(operator)
    both = await asyncio.gather(*(send(operator, "create", form) for _ in range(2)))
    assert {answer.status_code for answer in both} == {303}
    assert both[0].headers["Location"] == both[1].headers["Location"]
    another = await send(operator, "create", form | {"name": "Another"})
    assert another.headers["Location"] != both[0].headers["Location"]
    assert len(await campaigns(pool)) == 2


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"name": ""}, "name"),
    ({"firmware": ""}, "firmware"),
    ({"firmware": "999"}, "firmware"),
    ({"group": ""}, "group"),
    ({"group": "none"}, "group"),
    ({"per_minute": "fast"}, "per_minute"),
    ({"threshold": "150"}, "threshold"),
    ({"wave-0-size": ""}, "wave-0-size"),
    ({"wave-0-soak": "soon"}, "wave-0-soak"),
    ({**NIGHT, "time_zone": "Mars/North"}, "time_zone"),
    ({**NIGHT, "window_until": "4 o'clock"}, "window_until"),
    ({**NIGHT, "window_cutoff": "9h"}, "window_cutoff"),
]
"""Changed fields, and the field beside which the mistake is explained."""


@pytest.mark.parametrize("action", ["preview", "create"])
async def test_a_mistake_is_explained_beside_its_field(pool: Pool, operator: httpx2.AsyncClient, action: str) -> None:
    for changes, beside in MISTAKES:
        shown = await send(operator, action, await filled(operator, **changes))
        assert shown.status_code in {409, 422}, changes
        assert f'class="error" id="d-{beside}"' in shown.text, changes
        assert 'role="alert"' in shown.text
        if "name" not in changes:
            assert 'value="Spring release"' in shown.text  # nothing that was typed is lost
    assert await campaigns(pool) == []


async def test_waves_are_added_and_removed_without_losing_what_was_typed(operator: httpx2.AsyncClient) -> None:
    form = await filled(operator, **{"wave-0-size": "7"})
    added = await send(operator, "add", form)
    fields = fields_of(added)
    assert (fields["wave-0-size"], fields["wave-1-size"], fields["name"]) == ("7", "", "Spring release")
    removed = fields_of(await send(operator, "remove:0", fields | {"wave-1-size": "9"}))
    assert "wave-0-size" not in removed
    assert removed["wave-1-size"] == "9"


async def test_a_preset_fills_the_form_and_keeps_what_the_campaign_is_about(operator: httpx2.AsyncClient) -> None:
    fields = fields_of(await send(operator, "fill:cautious", await filled(operator)))
    assert (fields["name"], fields["group"]) == ("Spring release", "pumps")
    assert (fields["wave-0-size"], fields["wave-1-size"], fields["ramp_from"]) == ("1%", "10%", "30")
    assert (await send(operator, "fill:none", fields)).status_code == 404


async def test_the_rules_can_be_edited_as_text_and_do_not_come_back(pool: Pool, operator: httpx2.AsyncClient) -> None:
    shown = await send(operator, "text", await filled(operator, threshold="3"))
    fields = fields_of(shown)
    assert to_data(parse(fields["policy_text"], Format.YAML))["guardrails"][0]["threshold"] == "3%"
    assert "The text does not turn back into the form." in shown.text
    wrong = await send(operator, "create", fields | {"policy_text": "pace:\n  per_minut: 3\n"})
    assert wrong.status_code == 422
    assert "line 2, column 3" in wrong.text
    assert "did you mean per_minute?" in wrong.text
    created = await send(operator, "create", fields | {"policy_text": TWO_GUARDRAILS})
    assert created.status_code == 303
    found = (await campaigns(pool))[0]
    stored = await policy_of(pool, found["id"])
    assert len(stored["guardrails"]) == 2
    unreadable = await send(operator, "text", await filled(operator, per_minute="fast"))
    assert unreadable.status_code == 422
    assert 'id="d-per_minute"' in unreadable.text


async def test_a_stored_policy_that_the_form_cannot_show_opens_as_text(
    pool: Pool, operator: httpx2.AsyncClient
) -> None:
    document = parse(TWO_GUARDRAILS, Format.YAML)
    await stored_policies.put(pool, "north", "careful", document, actor="test")
    assert "careful" in (await operator.get(PAGE)).text
    shown = await send(operator, "fill:careful", await filled(operator))
    assert "has rules that the form lacks" in shown.text
    assert to_data(parse(fields_of(shown)["policy_text"], Format.YAML)) == to_data(document)


async def test_without_firmware_or_groups_the_page_says_what_to_do(pool: Pool) -> None:
    async with signed_in(pool, "south", Role.OPERATOR) as client:
        shown = await client.get(PAGE)
        assert "Register firmware" in shown.text
        assert "rollwave device-group import" in shown.text


async def test_another_tenants_firmware_and_group_are_unknown(pool: Pool, operator: httpx2.AsyncClient) -> None:
    theirs = await prepare(pool, "south")
    await devices.put_group(pool, "south", "secret", ["a"])
    for changes in ({"firmware": str(theirs)}, {"group": "secret"}):
        shown = await send(operator, "create", await filled(operator, **changes))
        assert shown.status_code == 422, changes
    assert "secret" not in (await operator.get(PAGE)).text


async def test_the_form_needs_its_token_and_an_operator(pool: Pool, operator: httpx2.AsyncClient) -> None:
    assert (await operator.post(PAGE, data={"do": "create"})).status_code == 403
    async with signed_in(pool, "north", Role.VIEWER) as viewer:
        shown = await viewer.get("/console/devices")
        answer = await viewer.post(PAGE, data={"csrf_token": token(shown), "do": "create"})
        assert answer.status_code == 403
    assert await campaigns(pool) == []
