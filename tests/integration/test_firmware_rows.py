"""Firmware rows as hosts write them: readable values are sent in one form, and unreadable ones pause the campaign."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import Connection, always_succeeds, connect, devices, insert_campaign, wait_until_ended, worker
from tests.support import eventually

DIGEST = hashlib.sha256(b"firmware").hexdigest()


async def campaign_over(host: Connection, **columns: object) -> int:
    """A RUNNING campaign over one device, whose firmware row has these values."""
    campaign = await insert_campaign(host, 1)
    sets = ", ".join(f"{name} = ${number}" for number, name in enumerate(columns, 2))
    await host.execute(
        f"UPDATE firmware_versions f SET {sets} FROM ota_campaigns c"
        " WHERE c.id = $1 AND f.id = c.firmware_version_id AND f.tenant_id = c.tenant_id",
        campaign,
        *columns.values(),
    )
    return campaign


async def test_firmware_rows_written_by_hosts_are_sent_in_one_form(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    plain = {"firmware_url": "https://a.invalid/f", "checksum": "", "action": "update"}
    rows: list[tuple[dict[str, object], dict[str, Any]]] = [
        ({"checksum_sha256": f"sha256:{DIGEST.upper()}"}, {"checksum": DIGEST}),
        ({"checksum_sha256": f" {DIGEST}\r\n"}, {"checksum": DIGEST}),
        (
            {"file_url": "https://a.invalid/g\n", "version": "2.2.0\r"},
            {"firmware_url": "https://a.invalid/g", "version": "2.2.0"},
        ),
        ({"file_size_bytes": 1234}, {"size": 1234}),
        ({"file_size_bytes": 0}, {}),
    ]
    async with connect(database) as host, devices(broker.url, always_succeeds) as fleet:
        expected = {
            await campaign_over(host, **columns): plain | {"version": f"2.1.0+{number}" if number else "2.1.0"} | sent
            for number, (columns, sent) in enumerate(rows)
        }
        async with worker(database, broker.url, tmp_path / "log"):
            for campaign in expected:
                await wait_until_ended(host, campaign)
    got = {command.campaign: json.loads(command.body) for command in fleet.commands}
    assert got == {campaign: {"campaign_id": campaign, **body} for campaign, body in expected.items()}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("checksum_sha256", hashlib.md5(b"firmware").hexdigest(), "an MD5 sum"),
        ("checksum_sha256", base64.b64encode(hashlib.sha256(b"firmware").digest()).decode(), "in base64"),
        ("file_url", "ftp://a.invalid/f", "not an http or https URL"),
        ("file_url", "https://a.invalid/\x1bf", "control character"),
    ],
)
async def test_firmware_that_no_device_could_use_pauses_the_campaign(
    database: str, broker: EmbeddedBroker, tmp_path: Path, column: str, value: str, reason: str
) -> None:
    async with connect(database) as host, devices(broker.url, always_succeeds) as fleet:
        held = await campaign_over(host, **{column: value})
        readable = await insert_campaign(host, 1)
        async with worker(database, broker.url, tmp_path / "log"):
            await wait_until_ended(host, readable)
            why = f"SELECT status_reason FROM ota_campaigns WHERE id = {held} AND status = 'PAUSED'"
            assert reason in await eventually(lambda: host.fetchval(why))
            assert not fleet.commands_of(held)
            await host.execute(f"UPDATE firmware_versions SET {column} = $1 WHERE {column} = $2", "", value)
            if column == "file_url":
                await host.execute("UPDATE firmware_versions SET file_url = 'https://a.invalid/f' WHERE file_url = ''")
            await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", held)
            await wait_until_ended(host, held)
