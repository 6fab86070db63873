"""A worker is cut off from its database, then from its broker, in three ways. After each repair nothing is lost.

Devices report once, and deadlines are longer than the test, so a lost report would leave its campaign unfinished.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.store.migrate import migrate
from tests.auditor import auditing
from tests.engine import (
    Devices,
    answer_with,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.network import FAULTS, Network, network
from tests.servers import Mosquitto, crashable_postgres
from tests.support import Running, eventually, psql

TOTAL = 1000
"""More devices than are sent to before the last repair, however long it takes. The rest go immediately after it."""

HEARD = "ota_status_listener_subscribed"
LOST = "ota_status_listener_disconnected"
SETTINGS = {
    "ROLLWAVE_LEASE": "2",
    "ROLLWAVE_PUBLISH_TIMEOUT": "2",
    "ROLLWAVE_MQTT_KEEPALIVE": "2",
}


@pytest.fixture
def networks() -> Iterator[dict[str, Network]]:
    with ExitStack() as stack:
        yield {fault: stack.enter_context(network()) for fault in FAULTS}


@pytest.fixture
def server(networks: dict[str, Network]) -> Iterator[EmbeddedPostgres]:
    """A server that listens where the networks end, with one migrated database for each."""
    near = ",".join(each.database.near for each in networks.values())
    with crashable_postgres(listen_addresses=near) as server:
        with (server.data_dir / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 198.18.0.0/15 trust\n")
        asyncio.run(migrate(server.url))
        psql(server.url, "SELECT pg_reload_conf()")
        for fault in networks:
            psql(server.url, f'CREATE DATABASE "{fault}" TEMPLATE postgres')
        yield server


async def test_a_network_partition_loses_no_report(
    networks: dict[str, Network], server: EmbeddedPostgres, tmp_path: Path, outage: float
) -> None:
    async with asyncio.TaskGroup() as group:
        for fault, each in networks.items():
            group.create_task(story(fault, each, server, tmp_path / fault, outage), name=fault)


async def story(fault: str, net: Network, server: EmbeddedPostgres, folder: Path, outage: float) -> None:
    folder.mkdir()
    here = server.url.replace("/postgres?", f"/{fault}?")
    there = f"postgresql://postgres@{net.database.near}:5432/{fault}"
    with Mosquitto(folder, config=f"listener 1883 {net.broker.near}\n") as broker:
        async with (
            connect(here) as host,
            auditing(here) as auditor,
            devices(broker.url, answer_with("DOWNLOADING")) as fleet,
            worker(there, f"mqtt://{net.broker.near}:1883", folder / "log", within=net.inside, **SETTINGS) as it,
        ):
            campaign = await insert_campaign(host, TOTAL, rollout_rate=2)
            done: set[str] = set()
            for link, notice in ((net.database, "ota_database_unavailable"), (net.broker, LOST)):
                await underway(fleet, it)
                before = len(events(it, notice))
                link.cut(fault)
                over = time.monotonic() + outage
                finish(fleet, campaign, done)
                await eventually(lambda: len(events(it, notice)) > before, timeout=15, what=f"{link.name}: {notice}")  # noqa: B023
                await eventually(lambda: time.monotonic() > over, timeout=outage, what="it has lasted")  # noqa: B023
                link.repair(fault)
                assert (await campaign_row(host, campaign))[0] == "RUNNING"
            await host.execute("UPDATE ota_campaigns SET rollout_rate = $1", TOTAL)
            await eventually(lambda: len(fleet.times_sent(campaign)) == TOTAL, timeout=60, what="all sent to")
            finish(fleet, campaign, done)
            await wait_until_ended(host, campaign, timeout=60)
            assert await campaign_row(host, campaign) == ("COMPLETED", TOTAL, 0)
            assert await breakdown(host, campaign) == {"SUCCESS": TOTAL}
            assert {command.attempt for command in fleet.commands_of(campaign)} == {1}
            assert it.process.returncode is None
    assert auditor.snapshots > 20


async def underway(fleet: Devices, it: Running) -> None:
    before = len(fleet.commands)
    await eventually(lambda: len(fleet.commands) > before + 10, timeout=60, what="commands go out")
    await eventually(lambda: len(events(it, HEARD)) > len(events(it, LOST)), timeout=60, what="reports come in")


def finish(fleet: Devices, campaign: int, done: set[str]) -> None:
    """Every device that has its command reports success, once."""
    for device in sorted(fleet.times_sent(campaign).keys() - done):
        fleet.report(device, campaign, "SUCCESS")
        done.add(device)
