"""One large campaign under faults, with devices that are mute, repeat or reorder reports, or send false ones.

``python -m tests.chaos.thousands --devices 20000``
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rollwave.mqtt.payload import encode_report
from tests.auditor import auditing
from tests.chaos.fresh_databases import FreshDatabases, fresh_databases
from tests.chaos.workers import Workers, running_workers
from tests.engine import Command, Devices, breakdown, campaign_row, connect, devices, insert_campaign, wait_until_ended
from tests.servers import Mosquitto
from tests.support import eventually

WORKERS = 3
KILL_EVERY = 3.0
PER_SECOND = 400
ATTEMPTS = 3
SETTINGS = {
    "OTA_TICK_INTERVAL": "0.25",
    "ROLLWAVE_LEASE": "3",
    "OTA_PROGRESS_TIMEOUT": "8",
    "OTA_MAX_ATTEMPTS": str(ATTEMPTS),
}


@dataclass
class SimulatedDevices:
    """Devices that each keep one behaviour and one final status, and the number of devices by final status."""

    bad_share: float = 0.05
    tally: dict[str, str] = field(default_factory=dict)
    _answered: set[tuple[str, int | None]] = field(default_factory=set)

    def answer(self, command: Command) -> Sequence[bytes]:
        """The reports of a device to a command. Each attempt is answered once only."""
        if (command.device, command.attempt) in self._answered:
            return ()
        self._answered.add((command.device, command.attempt))
        draw = random.Random(zlib.crc32(command.device.encode()))
        behaviour, end = draw.random(), "FAILED" if draw.random() < self.bad_share else "SUCCESS"
        if behaviour < 0.02:
            self.tally[command.device] = "FAILED"  # These devices are mute. The engine fails them in the end.
            return ()
        self.tally[command.device] = end
        words = [encode_report(command.campaign, word) for word in ("DOWNLOADING", "INSTALLING", end)]
        if behaviour < 0.04:
            return [word for word in words for _ in range(3)]
        if behaviour < 0.06:
            draw.shuffle(words)
        elif behaviour < 0.07:
            return [*lies(command), *words, encode_report(command.campaign, "FAILED"), *lies(command)]
        return words


def lies(command: Command) -> list[bytes]:
    """Messages that must change nothing: for other campaigns, for unknown attempts, and invalid reports."""
    return [
        encode_report(command.campaign + 1, "SUCCESS"),
        encode_report(command.campaign, "FAILED", attempt=ATTEMPTS + 5),
        b'{"campaign_id": true, "status": "FAILED"}',
        b"\xff\xfe{",
        b"",
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result: the campaign's status and counters, its rows, and what the devices reported."""

    campaign: tuple[str, int, int]
    rows: dict[str, int]
    tally: dict[str, int]
    killed: int
    commands: int
    snapshots: int
    problems: Sequence[str]

    @property
    def right(self) -> bool:
        """Whether the engine's counters and its rows equal the devices' final statuses."""
        counted = ("COMPLETED", self.tally.get("SUCCESS", 0), self.tally.get("FAILED", 0))
        return self.campaign == counted and self.rows == self.tally and not self.problems


async def roll_out(here: FreshDatabases, mosquitto: Mosquitto, number: int, say: Callable[[str], None]) -> Outcome:
    """Roll out to ``number`` devices, while workers are killed, the broker restarts and the database crashes."""
    crowd = SimulatedDevices()
    async with here.database() as database, devices(mosquitto.url, crowd.answer, "crowd") as fleet:
        settings = SETTINGS | {"DATABASE_URL": database, "MQTT_BROKER_URL": mosquitto.url}
        rate = PER_SECOND // 4
        async with connect(database) as host:
            campaign = await insert_campaign(host, number, rollout_rate=rate, abort_threshold=1.0)
        async with auditing(database, rest=0.5) as auditor, running_workers(settings, here.folder, WORKERS) as workers:
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(kill_one_after_another(workers))
                troubles = group.create_task(in_the_middle(here, mosquitto, fleet, number, say))
                await watch(fleet, number, say)
                await troubles
                killing.cancel()
            await workers.replace_ended()
            async with connect(database) as host:
                await wait_until_ended(host, campaign, timeout=60 + number / 100)
                found, rows = await campaign_row(host, campaign), await breakdown(host, campaign)
            workers.note_ended()
            problems = workers.unexpected_ends()
    tally = Counter(crowd.tally.values())
    return Outcome(found, rows, dict(tally), workers.killed(), len(fleet.commands), auditor.snapshots, problems)


async def kill_one_after_another(workers: Workers) -> None:
    """Kill workers until cancelled."""
    for victim in range(1_000_000):
        await asyncio.sleep(KILL_EVERY)
        await workers.signal(victim, signal.SIGKILL)
        await workers.replace_ended()


async def in_the_middle(
    here: FreshDatabases, mosquitto: Mosquitto, fleet: Devices, number: int, say: Callable[[str], None]
) -> None:
    """Restart the broker after a third of the devices has been sent to, and crash the database after two thirds."""
    await eventually(lambda: len(fleet.commands) > number / 3, timeout=number, what="a third")
    say("the broker is restarted")
    await asyncio.to_thread(mosquitto.stop)
    await asyncio.to_thread(mosquitto.start)
    await eventually(lambda: len(fleet.commands) > 2 * number / 3, timeout=number, what="two thirds")
    say("the database crashes")
    await asyncio.to_thread(here.server.stop, "immediate")
    await asyncio.to_thread(here.server.start)


async def watch(fleet: Devices, number: int, say: Callable[[str], None]) -> None:
    """Wait until every device has been sent to."""
    for tenth in range(1, 11):
        await eventually(
            lambda: len({each.device for each in fleet.commands}) >= number * tenth / 10,  # noqa: B023
            timeout=60 + number / 20,
            what=f"{tenth} tenths sent to",
        )
        say(f"{number * tenth // 10} devices sent to")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.thousands", description=__doc__)
    parser.add_argument("--devices", type=int, default=20_000)
    wanted = parser.parse_args()

    async def play() -> Outcome:
        async with fresh_databases() as here:
            with Mosquitto(here.folder) as mosquitto:
                return await roll_out(here, mosquitto, wanted.devices, lambda line: print(line, flush=True))

    outcome = asyncio.run(play())
    print(outcome)
    return 0 if outcome.right else 1


if __name__ == "__main__":
    sys.exit(main())
