"""The lists behind the numbers of a campaign's page: each link leads to the devices that its number counts."""

from __future__ import annotations

import re
from html import unescape

import httpx2
import pytest

from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.store.database import Pool
from tests.console import signed_in
from tests.engine import connect
from tests.integration import test_policy_waves as under_documents
from tests.support import eventually

WAVES = [{"name": "canary", "size": 3, "gate": {"approval": True}}, {"name": "rest"}]
PER_HARDWARE = {"name": "hardware", "threshold": "90%", "scope": "segment", "per": ["revision", "line"]}
PER_REVISION = {"name": "revisions", "threshold": "95%", "scope": "segment", "per": ["revision"]}
PER_WAVE = {"name": "waves", "threshold": "95%", "scope": "wave"}
DOCUMENT = {
    "order": "id",
    "waves": WAVES,
    "guardrails": [PER_HARDWARE | {"action": "quarantine"}, PER_WAVE, PER_REVISION],
}
CANARY = {"d1": {"revision": "A", "line": "x&y"}, "d2": {"revision": "B", "line": "1"}, "d3": {"revision": "B"}}
REST = {f"e{number}": {"revision": "A", "line": "x&y"} for number in range(1, 7)}


@pytest.fixture
async def page(pool: Pool, database: str, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a campaign whose first wave has ended, one of its three devices has failed."""
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")
    devices = under_documents.devices(broker, failing={"d2"})
    async with connect(database) as host, devices, under_documents.running(pool):
        campaign = await under_documents.insert_campaign(host, DOCUMENT, CANARY | REST)

        async def waits() -> bool:
            found = await host.fetchval("SELECT state FROM ota_campaign_waves WHERE number = 0")
            return bool(found == "awaiting_approval")

        await eventually(waits, timeout=30, what="an approval is waited for")
    return f"/console/campaigns/{campaign}"


def part(page: str, panel: str) -> str:
    [section] = re.findall(rf'<section id="panel-{panel}".*?</section>', page, re.DOTALL)
    return str(section)


async def links(client: httpx2.AsyncClient, page: str, panel: str) -> dict[str, str]:
    """The links of a panel of the page: addresses by text."""
    section = part((await client.get(page)).text, panel)
    found = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(.*?)</a>', section, re.DOTALL)
    return {unescape(re.sub(r"<[^>]+>", "", text)).strip(): unescape(address) for address, text in found}


async def listed(client: httpx2.AsyncClient, address: str) -> list[str]:
    """The devices that an address lists, in the page's table and in its file."""
    assert address.endswith("#devices")
    shown = await client.get(address.removesuffix("#devices"))
    assert shown.status_code == 200, shown.text
    table = part(shown.text, "devices")
    devices = re.findall(r'href="/console/devices/([^"?/]+)"', table)
    [file] = re.findall(r'href="([^"]+/devices\.csv[^"]*)"', table)
    rows = (await client.get(unescape(file))).text.splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == devices
    return devices


async def test_each_number_leads_to_its_devices(pool: Pool, page: str) -> None:
    async with signed_in(pool, "north", Role.VIEWER) as client:
        waves = await links(client, page, "waves")
        assert await listed(client, waves["3"]) == sorted(CANARY)
        assert await listed(client, waves["6"]) == sorted(REST)
        assert "wave canary" in (await client.get(waves["3"].removesuffix("#devices"))).text

        guardrails = await links(client, page, "guardrails")
        segments = {text.partition(":")[0]: address for text, address in guardrails.items()}
        assert await listed(client, segments["line=1, revision=B"]) == ["d2"]
        assert await listed(client, segments["no line, revision=B"]) == ["d3"]
        assert await listed(client, segments["line=x&y, revision=A"]) == ["d1", *sorted(REST)]
        assert await listed(client, guardrails["33.3\u202f%"]) == ["d2"]  # of the wave
        assert await listed(client, guardrails["100.0\u202f%"]) == ["d2"]  # of the worst segment

        assert "50.0\u202f%" not in guardrails  # a revision is of several segments: no list is exactly its own

        waiting = await links(client, page, "waiting")
        assert await listed(client, waiting["6"]) == sorted(REST)
