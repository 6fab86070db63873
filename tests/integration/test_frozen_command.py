"""All commands of a campaign have the same body, byte for byte, even if its firmware row is changed meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.topics import ask_topic
from tests.engine import TENANT, answer_with, connect, devices, insert_campaign, wait_until_ended, worker
from tests.support import eventually

CANARY = ("dev-1", "dev-2", "dev-3")

OTHER_FIRMWARE = """
    WITH other AS (
        INSERT INTO firmware_versions (tenant_id, version, file_url) VALUES ('north', '8', 'https://c.invalid/h')
        RETURNING id
    )
    UPDATE ota_campaigns SET firmware_version_id = (SELECT id FROM other)
"""


async def test_a_campaign_sends_its_first_command_unchanged_after_the_firmware_row_is_edited(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"OTA_PROGRESS_TIMEOUT": "1", "OTA_MAX_ATTEMPTS": "2", "ROLLWAVE_CLAIM_BATCH": "3"}
    rules: dict[str, Any] = {
        "abort_threshold": 1.0,
        "rollout_strategy": "canary",
        "canary_percent": 25.0,
        "retry_delay": 0.1,
    }
    async with (
        connect(database) as host,
        devices(broker.url) as fleet,
        worker(database, broker.url, tmp_path / "before", **settings),
    ):
        campaign = await insert_campaign(host, 12, rollout_rate=4, **rules)
        await eventually(lambda: fleet.commands, what="the first is sent to")
        edited = "version = '9', file_url = 'https://b.invalid/g', checksum_sha256 = repeat('ab', 32)"
        await host.execute(f"UPDATE firmware_versions SET {edited}")
        async with worker(database, broker.url, tmp_path / "after", logs="ota_tick_start", **settings):
            await eventually(lambda: max(fleet.times_sent(campaign).values()) == 2, what="one is sent to again")
            await host.execute(OTHER_FIRMWARE)
            # The leases of the other devices must last longer than this test.
            await host.execute("UPDATE ota_campaigns SET progress_timeout = 600")
            fleet.answer = answer_with("DOWNLOADING")
            for device in CANARY:
                fleet.report(device, campaign, "SUCCESS")
            await eventually(lambda: "dev-12" in fleet.times_sent(campaign), what="the last is sent to")
            # While a command is being sent, a question about it is not answered.
            on_its_way = "SELECT status = 'DOWNLOADING' FROM ota_device_status WHERE device_id = 'dev-12'"
            await eventually(lambda: host.fetchval(on_its_way), what="and marked")
            await host.execute("UPDATE firmware_versions SET file_url = ''")
            before = len(fleet.commands)
            fleet.send(ask_topic(TENANT, "dev-12"), b"")
            await eventually(lambda: len(fleet.commands) > before, what="an answer")
            fleet.answer = answer_with("SUCCESS")
            for command in list(fleet.commands):
                fleet.report(command.device, campaign, "SUCCESS")
            await wait_until_ended(host, campaign)
    [body] = {command.body for command in fleet.commands}
    assert json.loads(body) == {
        "campaign_id": campaign,
        "firmware_url": "https://a.invalid/f",
        "version": "2.1.0",
        "checksum": "",
        "action": "update",
    }
