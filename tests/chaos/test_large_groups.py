"""Workers are killed while they target a large group: every device is targeted exactly once."""

from __future__ import annotations

from pathlib import Path

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.failpoints import Failpoint
from rollwave.store.database import Pool
from rollwave.store.targets import MAX_DEVICES_PER_BATCH
from tests.chaos.injected_faults import Effect, InjectedFault
from tests.chaos.workers import running_workers
from tests.engine import breakdown, connect
from tests.groups import add_members, create, device_names, targeted, targeting_progress
from tests.support import eventually

MEMBERS = 3 * MAX_DEVICES_PER_BATCH + 5000


async def test_a_worker_continues_the_targeting_that_a_crashed_worker_began(
    database: str, pool: Pool, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    faults = [InjectedFault(Failpoint.CAMPAIGN_WRITTEN, Effect.CRASH, nth) for nth in (3, 2, 3)]
    settings = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url, "OTA_TICK_INTERVAL": "0.2"}
    async with connect(database) as host:
        everyone = device_names(1, MEMBERS)
        await add_members(host, everyone)
        campaign = await create(host, pool, first_batch=MAX_DEVICES_PER_BATCH)

        async def done() -> bool:
            await workers.replace_ended()
            return (await targeting_progress(host, campaign))[1] is None

        async with running_workers(settings, tmp_path, 1, faults) as workers:
            await eventually(done, timeout=60, what="targeted")
            workers.note_ended()
            assert workers.killed() == len(faults), workers.output()
            assert workers.unexpected_ends() == []
        assert await targeted(host, campaign) == everyone
        assert await targeting_progress(host, campaign) == (MEMBERS, None, None)
        assert await breakdown(host, campaign) == {"PENDING": MEMBERS}
