"""Rollwave in a host's worker process and on the host's own tables: the usual case, from start to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import Connection, always_succeeds, campaign_row, connect, devices
from tests.host.platform import RUNNING, make_host
from tests.host.running import host_process, wait_for_heartbeats
from tests.support import eventually

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)


@pytest.mark.parametrize("options", [(), ("--own-loop",)], ids=["our loop", "the host's loop"])
async def test_a_hosts_process_sends_to_the_devices_that_wait(
    empty_database: str, broker: EmbeddedBroker, tmp_path: Path, options: tuple[str, ...]
) -> None:
    host = await make_host(empty_database)
    host.migrate("--grant-to", "host_service")
    async with (
        connect(host.root) as root,
        devices(broker.url, always_succeeds) as fleet,
        host_process(
            host.service, tmp_path / "log", *options, MQTT_BROKER_URL=broker.url, OTA_TICK_INTERVAL="0.2"
        ) as running,
    ):
        await eventually(lambda: len(fleet.commands_of(RUNNING)) >= 7, what="sent to")
        await eventually(lambda: _eleven_are_done(root), what="counted")
        await wait_for_heartbeats(running)


async def _eleven_are_done(root: Connection) -> bool:
    return (await campaign_row(root, RUNNING))[1] >= 11
