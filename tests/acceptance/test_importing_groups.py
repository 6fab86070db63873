"""`rollwave device-group import` of a large file: the group has all devices of the file, or is unchanged."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import connect
from tests.installation import Installation, installed, run_on_a_terminal
from tests.support import eventually, psql, rollwave_running


@pytest.fixture
async def north(database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, broker.url, tmp_path / "serve.log") as installation:
        yield installation


async def test_a_large_group_file_is_imported_in_parts_or_not_at_all(north: Installation, tmp_path: Path) -> None:
    def table(devices: int, more: str = "") -> str:
        file = tmp_path / "devices.csv"
        rows = "".join(f"DEV-{number};gateway;north, hall {number % 9};{'x' * 150}\r\n" for number in range(devices))
        file.write_text(f"sep=;\r\nDEVICE_ID;DEVICE_TYPE;site;note;\r\n{rows}{more}", "utf-16", newline="")
        return str(file)

    north.do("device-group", "put", "all", "old-1")
    refused = north.run("device-group", "import", "all", table(60_000, "dev#1\r\n"))
    assert (refused.returncode, "devices.csv:60003: " in refused.stderr) == (1, True)
    assert psql(north.database, "SELECT string_agg(device_id, ',') FROM device_group_members") == "old-1"
    made = north.run("device-group", "import", "all", table(60_000))
    assert (made.returncode, made.stdout) == (
        0,
        "group all: 60000 devices (60000 added, 1 removed, 60000 new)\n",
    ), made.stderr
    assert "of 60,000 devices sent" in made.stderr or made.stderr == ""
    assert psql(north.database, "SELECT count(DISTINCT attributes) FROM devices") == "10"
    assert psql(north.database, "SELECT count(*) FROM rollwave_group_import_devices") == "0"
    code, seen = run_on_a_terminal(north, "device-group", "import", "all", table(60_000))
    assert (code, "60,000 devices sent, updating the group" in seen) == (0, True)


@pytest.mark.parametrize("at", ["sending", "applying"])
async def test_ctrl_c_during_an_import_leaves_the_old_or_the_new_members(
    north: Installation, tmp_path: Path, at: str
) -> None:
    north.do("device-group", "put", "all", "old-1")
    table = tmp_path / "devices.csv"
    table.write_text("device_id,site\n" + "".join(f"dev-{number},north\n" for number in range(12_000)))
    # A lock blocks the next write of the import until Ctrl-C has been sent.
    held = "rollwave_group_import_devices" if at == "sending" else "device_group_members"
    async with (
        connect(north.database) as host,
        connect(north.database) as observer,
        rollwave_running("device-group", "import", "all", str(table), log=tmp_path / "log", env=north.env) as importing,
    ):
        if at == "sending":
            await eventually(lambda: observer.fetchval("SELECT devices > 0 FROM rollwave_group_imports"))
        transaction = host.transaction()
        await transaction.start()
        await host.execute(f"LOCK TABLE {held} IN EXCLUSIVE MODE")
        waits = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{held}'::regclass"
        await eventually(lambda: observer.fetchval(waits), what="the import is held up")
        importing.process.send_signal(signal.SIGINT)
        await eventually(lambda: observer.fetchval("SELECT count(*) > 1 FROM pg_locks WHERE NOT granted"))
        await transaction.rollback()
        assert await importing.process.wait() == 130
    members = psql(north.database, "SELECT count(*), min(device_id) FROM device_group_members")
    if at == "sending":
        assert members == "1|old-1"
        assert "group all is unchanged" in importing.output()
        assert psql(north.database, "SELECT count(*) FROM rollwave_group_import_devices") == "0"
    else:
        assert members == "12000|dev-0"
        assert "group all has its new members" in importing.output()
    assert "Traceback" not in importing.output()
