"""An installation whose campaigns stand still in a known state, for screens that are compared with files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.payload import encode_report
from rollwave.store.database import create_pool
from tests.engine import Command, devices
from tests.installation import TENANT, Installation, installed
from tests.support import eventually, psql

SCREENS = Path(__file__).parent / "acceptance" / "screens"

POLICY = """\
order: label:place
waves:
- {name: canary, size: 10}
- {name: early, size: 34}
- {name: rest}
pace: {per_minute: 60000}
retry: {max_attempts: 1}
guardrails:
- {name: boots, threshold: 40%, method: ratio, min_finished: 20, action: abort}
- {name: revision, scope: segment, per: [revision], threshold: 60%, method: ratio, min_finished: 10, action: quarantine}
"""

PUMPS = tuple(f"pump-{number:02}" for number in range(1, 61))
LAST_SENT = 44
"""The pumps of the wave rest come after this one. The last eight of the wave before never finish."""

_MASKS: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]] = (
    (r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d", r"2027-01-11\g<1>08:00"),
    (r"(?<=2027-01-11 08:00):\d\d", ":00"),
    (r"(?<![-\d:] )\b\d\d:\d\d:\d\d\b", "08:00:00"),
    (r"\b\d\d:\d\d(?= UTC| and \d)", "08:00"),
    (r"\d+\.\d a minute", "0.6 a minute"),
    (r"[▁▂▃▄▅▆▇█]{20,40}(?= 0.6 a minute)", lambda found: "▄" * len(found[0])),
    (r"[_.=+*%#-]{20,40}(?= 0.6 a minute)", lambda found: "=" * len(found[0])),
    (r"\b[0-9a-f]{16}\b", "0123456789abcdef"),
)


def masked(text: str) -> str:
    """What depends on the time of the day or on this machine, replaced: times, rates, ports, ids of keys."""
    for pattern, by in _MASKS:
        text = re.sub(pattern, by, text)
    return text


def answer(command: Command) -> Sequence[bytes]:
    """The reports of a pump. Every fifth of revision B fails, and the last eight that are sent to do not finish."""
    number = int(command.device.partition("-")[2])

    def report(status: str, error: str | None = None, code: str | None = None) -> bytes:
        return encode_report(command.campaign, status, attempt=command.attempt, error=error, code=code)

    started = [report("DOWNLOADING")]
    if LAST_SENT - 8 < number <= LAST_SENT - 3:
        return [*started, report("INSTALLING")]
    if number > LAST_SENT - 8:
        return started
    if number % 6 == 0:
        return [*started, report("FAILED", error="image does not boot", code="E_BOOT")]
    if number == 35:
        return [*started, report("FAILED", error="no space left")]
    return [*started, report("INSTALLING"), report("SUCCESS")]


def revision(device: str) -> str:
    """The hardware revision: every third pump is a B."""
    return "B" if int(device.partition("-")[2]) % 3 == 0 else "A"


@asynccontextmanager
async def standing_still(database: str, folder: Path) -> AsyncIterator[Installation]:
    """Campaign 1 runs and waits for its devices in progress, 2 was aborted, 3 was not started."""
    with EmbeddedBroker() as broker:
        serving = installed(database, broker.url, folder / "serve.log", timeout=120)
        async with serving as north, devices(broker.url, answer):
            await asyncio.to_thread(_prepare, north, folder)
            try:
                await eventually(lambda: asyncio.to_thread(_stands_still, north), timeout=120)
            except AssertionError as error:
                raise AssertionError(state(north)) from error
            await asyncio.to_thread(_prepare_others, north)
            yield north


def _prepare(north: Installation, folder: Path) -> None:
    rows = "".join(f"{each},{revision(each)},2.3.0,{each[-2:]}\n" for each in PUMPS)
    (folder / "pumps.csv").write_text(f"device_id,revision,version,place\n{rows}")
    (folder / "policy.yaml").write_text(POLICY)
    north.do("device-group", "import", "pumps", str(folder / "pumps.csv"))
    north.do("device-group", "put", "bench", "bench-1", "bench-2", "bench-3", "bench-4")
    north.do("firmware", "add", "https://files.example/pump-2.4.1.bin", "--version", "2.4.1")
    north.do("firmware", "add", "https://files.example/gate.bin", "--version", "0.9", "--device-type", "gateway")
    create = ("campaign", "create", "Spring release", "--firmware", "2.4.1", "--group", "pumps", "--start")
    north.do(*create, "--policy", str(folder / "policy.yaml"))


def _prepare_others(north: Installation) -> None:
    create = ("campaign", "create", "--group", "bench", "--firmware")
    north.do(*create, "2.4.1", "Bench trial")
    north.do("campaign", "abort", "2", "--yes")
    north.do(*create, "id:2", "\x1b[31mGateways <b>")


def _stands_still(north: Installation) -> bool:
    """Whether only the devices that never finish are in progress."""
    return "1|DOWNLOADING|3\n1|FAILED|7\n1|INSTALLING|5\n1|PENDING|16\n" in state(north)


def state(north: Installation) -> str:
    """The rows of the campaigns' devices, for messages of failed tests."""
    rows = "SELECT campaign_id, status, count(*) FROM ota_device_status GROUP BY 1, 2 ORDER BY 1, 2"
    return psql(north.database, rows)


async def settle_times(database: str) -> None:
    """Spread the past of campaign 1 over an hour, at a rate that changes, so that its forecast is always the same."""
    async with create_pool(database, size=1) as pool, pool.acquire() as connection:
        await connection.execute("DELETE FROM ota_campaign_points WHERE campaign_id = 1")
        finished = 0
        for part in range(13):
            await connection.execute(
                "INSERT INTO ota_campaign_points (tenant_id, campaign_id, at, pending, downloading, installing,"
                " succeeded, failed, skipped) VALUES ($1, 1, now() - $2 * interval '5 min', $3, 3, 5, $4, $5, 0)",
                TENANT,
                12 - part,
                52 - finished,
                finished - finished // 5,
                finished // 5,
            )
            finished += 2 + 2 * (part % 2)
