"""The pace of a policy document, with a real worker: the rate that the document says is the rate on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import Command, Connection, connect, devices, worker
from tests.integration.test_policy_waves import insert_campaign
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


def most_within(commands: list[Command], seconds: float) -> int:
    times = sorted(each.at for each in commands)
    return max(sum(first <= at < first + seconds for at in times) for first in times)


async def test_the_rate_of_the_document_is_reached_and_not_exceeded(
    host: Connection, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """1,200 a minute are 10 in each of the two steps of a tick."""
    document = {"pace": {"per_minute": 1200, "start_jitter": "90s"}, "deadlines": {"answer": "10m"}}
    campaign = await insert_campaign(host, document, {f"dev-{number}": {} for number in range(120)})
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "worker", OTA_TICK_INTERVAL="1"):
        await eventually(lambda: len(fleet.commands) == 120)
    first, last = fleet.commands[0].at, fleet.commands[-1].at
    assert 5.0 < last - first < 6.5, "12 steps of half a second"
    assert most_within(fleet.commands, 0.9) <= 20, "the share of a tick"
    assert {json.loads(each.body)["start_within"] for each in fleet.commands} == {90}
    answer_by = "SELECT min(due_at - started_at) > interval '11 min' FROM ota_device_status WHERE campaign_id = $1"
    assert await host.fetchval(answer_by, campaign), "the jitter is added to the time for the first report"


async def test_a_retry_takes_none_of_the_pace(
    host: Connection, database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """One device goes a minute; one that has failed is sent its next attempt beside it."""
    document = {"pace": {"per_minute": 1}, "retry": {"on": ["rejected"], "max_attempts": 2, "delay": "1s"}}
    await insert_campaign(host, {**document, "guardrails": []}, {f"dev-{number}": {} for number in range(3)})

    def answer(command: Command) -> list[bytes]:
        report = {"campaign_id": command.campaign, "status": "FAILED" if command.attempt == 1 else "DOWNLOADING"}
        return [json.dumps(report).encode()]

    async with (
        devices(broker.url, answer) as fleet,
        worker(database, broker.url, tmp_path / "worker", OTA_TICK_INTERVAL="1"),
    ):
        await eventually(lambda: [each.attempt for each in fleet.commands] == [1, 2])
    assert len({each.device for each in fleet.commands}) == 1
