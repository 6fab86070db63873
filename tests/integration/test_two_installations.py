"""Two databases whose workers use the same broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.store.migrate import migrate
from tests.engine import (
    Connection,
    always_succeeds,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def test_two_installations_on_one_broker_do_not_mix_their_reports(
    database: str, empty_database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await migrate(empty_database)
    slots_of_each = {"ROLLWAVE_LISTENER_SLOTS": "2"}
    async with (
        connect(empty_database) as other_host,
        devices(broker.url, always_succeeds) as fleet,
        worker(database, broker.url, tmp_path / "one", **slots_of_each) as one,
        worker(empty_database, broker.url, tmp_path / "two", **slots_of_each) as two,
    ):
        for each in (one, two):
            await eventually(lambda: len(events(each, "ota_status_listener_subscribed")) == 2, what="slots")  # noqa: B023
        first = await insert_campaign(host, 60, rollout_rate=20)
        second = await insert_campaign(other_host, 60, tenant="south", rollout_rate=20)
        await wait_until_ended(host, first)
        await wait_until_ended(other_host, second, tenant="south")
        assert await campaign_row(host, first) == ("COMPLETED", 60, 0)
        assert await campaign_row(other_host, second, "south") == ("COMPLETED", 60, 0)
        assert len(fleet.commands) == 120
