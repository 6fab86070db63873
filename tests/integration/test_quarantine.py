"""`rollwave quarantine` shows an operator the messages that a real worker could not read."""

from __future__ import annotations

import json
from pathlib import Path

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.topics import status_topic
from tests.engine import connect, devices, insert_campaign, worker
from tests.support import eventually, psql, rollwave

BAD = (
    b'{"campaign_id": 1, "status": "\x1b[2J\xe2\x80\xae<b>"}',
    b"\xff\xfe\x00\x01",
    "é".encode() * 3000,
    b"null",
)


async def test_quarantined_messages_are_listed_and_purged(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    env = {"DATABASE_URL": database}
    async with (
        connect(database) as host,
        devices(broker.url) as fleet,
        worker(database, broker.url, tmp_path / "worker.log"),
    ):
        for tenant in ("north", "south"):
            await insert_campaign(host, 1, tenant=tenant)
        for payload in BAD:
            fleet.send(status_topic("north", "dev-1"), b"x" + payload if payload[0] == 0xC3 else payload)
        fleet.send(status_topic("south", "dev-1"), b"theirs")
        await fleet.wait_until_delivered()
        await eventually(lambda: psql(database, "SELECT count(*) FROM ota_quarantine") == "5")
    listed = rollwave("quarantine", "list", "--tenant", "north", env=env)
    assert listed.returncode == 0, listed.stderr
    assert "\x1b" not in listed.stdout
    assert r"\x1b[2J\u202e<b>" in listed.stdout
    assert "0xfffe0001" in listed.stdout
    assert "theirs" not in listed.stdout
    document = json.loads(rollwave("quarantine", "list", "--tenant", "north", "-o", "json", env=env).stdout)
    assert document["total"] == 4
    kept = [(each["encoding"], each["payload"], each["cut"]) for each in document["messages"]]
    assert kept == [
        ("utf-8", "null", False),
        ("utf-8", "x" + "é" * 2047, True),  # The message was cut inside a character.
        ("hex", "fffe0001", False),
        ("utf-8", BAD[0].decode(), False),
    ]
    everybody = rollwave("quarantine", "list", "-o", "json", env=env)
    assert everybody.returncode == 0, everybody.stderr
    listed_messages = json.loads(everybody.stdout)
    assert (listed_messages["total"], {each["tenant_id"] for each in listed_messages["messages"]}) == (
        5,
        {"north", "south"},
    )
    psql(database, "CREATE ROLE rollwave_confined LOGIN NOINHERIT")
    assert rollwave("migrate", "--grant-to", "rollwave_confined", env=env).returncode == 0
    confined = env | {"DATABASE_URL": database.replace("postgres@", "rollwave_confined@")}
    refused = rollwave("quarantine", "list", env=confined)
    assert (refused.returncode, "--tenant" in refused.stderr, refused.stdout) == (1, True, "")
    assert "theirs" in rollwave("quarantine", "list", "--tenant", "south", env=confined).stdout
    one = rollwave("quarantine", "list", "--tenant", "north", "--limit", "1", env=env)
    assert "1 of 4; --limit shows more." in one.stderr
    refused = rollwave("quarantine", "clear", "--tenant", "north", env=env)
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert rollwave("quarantine", "clear", "--tenant", "north", "--yes", env=env).stdout == "4 messages deleted\n"
    assert rollwave("quarantine", "list", "--tenant", "north", env=env).stderr == "No messages kept for tenant north.\n"
    assert "theirs" in rollwave("quarantine", "list", "--tenant", "south", env=env).stdout
