"""docs/howto/bad-hardware-revision.md, over HTTP and a real broker: one revision is quarantined, the rest goes on."""

from __future__ import annotations

import httpx2
import pytest

from rollwave.domain.execution import ExecutionStatus as S
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.payload import encode_report
from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, assert_problem, calling, prepare_campaign_body
from tests.engine import Command, devices
from tests.integration.test_policy_waves import running
from tests.support import eventually

REVISIONS = {f"dev-{number:02}": "BC"[number % 2] for number in range(40)}
POLICY = {
    "pace": {"max_in_flight": 4},
    "guardrails": [
        {
            "name": "revision",
            "method": "sequential",
            "threshold": "5%",
            "scope": "segment",
            "per": ["hardware_revision"],
            "action": "quarantine",
        }
    ],
}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, broker: EmbeddedBroker) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")


async def start(client: httpx2.AsyncClient) -> str:
    for device, revision in REVISIONS.items():
        await client.put(f"/devices/{device}", json={"attributes": {"hardware_revision": revision}})
    body = await prepare_campaign_body(client, *REVISIONS) | {"policy": POLICY}
    created = await client.post(CAMPAIGNS, json=body)
    assert created.status_code == 201, created.text
    path = f"{CAMPAIGNS}/{created.json()['id']}"
    assert (await client.post(f"{path}/start")).json()["status"] == "RUNNING"
    return path


async def test_a_bad_hardware_revision_is_quarantined_and_released(pool: Pool, broker: EmbeddedBroker) -> None:
    fixed = False

    def answer(command: Command) -> list[bytes]:
        if REVISIONS[command.device] == "C" and not fixed:
            return [encode_report(command.campaign, S.FAILED, error="no boot", code="E_BOOT", version="2.0.0")]
        return [encode_report(command.campaign, S.SUCCESS)]

    async with calling(pool) as client, devices(broker.url, answer), running(pool):
        path = await start(client)

        async def breakdown() -> dict[str, int]:
            found: dict[str, int] = (await client.get(path)).json()["status_breakdown"]
            return found

        async def rest_has_succeeded() -> bool:
            return (await breakdown())["SUCCESS"] == 20

        await eventually(rest_has_succeeded, timeout=30, what="revision B")
        shown = (await client.get(path)).json()
        assert shown["status"] == "RUNNING"
        [guardrail] = shown["guardrails"]
        assert (guardrail["name"], guardrail["tripped"], guardrail["trips_after"]) == ("revision", True, 0)
        assert guardrail["labels"] == {"hardware_revision": "C"}
        assert guardrail["evidence"]["devices"]
        assert guardrail["limit"] > guardrail["threshold"] == 0.05
        failed = shown["status_breakdown"]["FAILED"]
        assert 5 <= failed < 20 - 4, "the campaign stopped sending to revision C"
        [row, *_] = (await client.get(f"{path}/devices?status=FAILED")).json()["devices"]
        assert row["error_code"] == "E_BOOT"
        events = (await client.get(f"{path}/events?limit=1000")).json()["events"]
        [number] = [each["detail"]["segment"] for each in events if each["event"] == "segment_quarantined"]
        assert next(each["detail"] for each in events if each["event"] == "attempt_failed")["code"] == "E_BOOT"

        fixed = True
        assert_problem(await client.post(f"{path}/segments/9/release"), 404, "not-found")
        released = await client.post(f"{path}/segments/{number}/release", json={"reason": "bootloader is fixed"})
        assert released.json() == {"id": shown["id"], "status": "RUNNING"}

        async def completed() -> bool:
            return bool((await client.get(path)).json()["status"] == "COMPLETED")

        await eventually(completed, timeout=30, what="the end of the campaign")
        assert await breakdown() == {
            **dict.fromkeys(shown["status_breakdown"], 0),
            "SUCCESS": 40 - failed,
            "FAILED": failed,
        }
        assert (await client.get(path)).json()["guardrails"][0]["tripped"] is False
        assert (await client.get(f"/devices/{row['device_id']}")).json()["version"] == "2.0.0"
