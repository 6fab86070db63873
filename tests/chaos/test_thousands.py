"""A large campaign under all kinds of faults: the engine's counters are what the devices report."""

from __future__ import annotations

from tests.chaos.fresh_databases import fresh_databases
from tests.chaos.thousands import roll_out
from tests.servers import Mosquitto

DEVICES = 2000


async def test_counters_equal_what_twenty_thousand_devices_reported(mosquitto: Mosquitto) -> None:
    async with fresh_databases() as here:
        outcome = await roll_out(here, mosquitto, DEVICES, print)
    assert outcome.right, outcome
    assert sum(outcome.tally.values()) == DEVICES
    assert outcome.killed > 0
