"""The API behaves as its OpenAPI document says. Schemathesis sends requests that it allows and that it forbids."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx2

from rollwave.embedded.broker import EmbeddedBroker
from tests.support import environment, eventually, free_port, rollwave, rollwave_running

# NUL characters in a device's attributes are refused, which JSON Schema cannot express.
CONFIG = """
[generation]
allow-x00 = false
"""
# Rules between the keys of a policy or a freeze, times that do not exist, the grammar of selectors, the names of time
# zones, and an entity tag that is not the present one, which is checked before the body.
BEYOND_THE_SCHEMA = """
[[operations]]
include-operation-id = "{operation}"
checks.positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 412, 422, "5xx"]
checks.negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 415, 422, 428, 429, "5xx"]
"""
BEYOND = ("create_campaign", "put_campaign_policy", "put_policy", "list_devices", "put_device", "add_freeze")


# Each boundary of each key of a policy is tried where a campaign is created. These requests have the same document, and
# get random ones only: otherwise two thirds of all requests would be about it.
NOT_EACH_BOUNDARY = """
phases.coverage.enabled = false
"""
SAME_DOCUMENT = ("put_policy", "put_campaign_policy")


async def test_the_server_behaves_as_its_openapi_document_says(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url}
    made = rollwave("apikey", "create", "--tenant", "north", "--role", "operator", env=settings)
    key, port = made.stdout.strip(), free_port()
    url = f"http://127.0.0.1:{port}"
    async with (
        rollwave_running("serve", "--port", str(port), log=tmp_path / "serve.log", env=settings) as server,
        httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        await eventually(lambda: ready(client), timeout=20, what="the server is ready")
        await prepare(client)
        status, output = await schemathesis(url, key, tmp_path)
        assert status == 0, output
        assert "Tested: 56" in output
        assert "✅ Stateful" in output, "some requests used ids from earlier responses"
        assert "Traceback" not in server.output()


async def ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).is_success
    except httpx2.ConnectError:
        return False


async def prepare(client: httpx2.AsyncClient) -> None:
    """Create rows, so that not every id leads to a 404."""
    customer = "/api/v1/customer"
    await client.post(f"{customer}/firmware", json={"version": "1", "file_url": "https://files.example/fw"})
    await client.put(f"{customer}/device-groups/site", json={"device_ids": ["gw-1", "gw-2"]})
    campaign = {"name": "first", "firmware_version_id": 1, "target_group_id": "site"}
    await client.put(f"{customer}/ota/policies/night", json={"pace": {"per_minute": 600}})
    answer = await client.post(f"{customer}/ota/campaigns", json=campaign)
    assert answer.status_code == 201, answer.text


async def schemathesis(url: str, key: str, folder: Path) -> tuple[int | None, str]:
    (folder / "schemathesis.toml").write_text(
        CONFIG
        + "".join(
            BEYOND_THE_SCHEMA.format(operation=each) + NOT_EACH_BOUNDARY * (each in SAME_DOCUMENT) for each in BEYOND
        )
    )
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
        *("--exclude-operation-id", "follow_campaign"),  # a stream: its answer does not end
        *("--mode", "all", "--max-examples", "6", "--seed", "1", "--no-color"),
        cwd=folder,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()
