"""Names that a terminal's encoding lacks are escaped in every list, and never raise an error."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from rollwave.embedded.broker import EmbeddedBroker
from tests.installation import TENANT, Installation, installed
from tests.support import environment, program, psql

NAME = "Frühling → 春 😀"
TERMINALS = {
    "strict": {"PYTHONIOENCODING": "cp1252:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}
SHOWN = {
    "strict": "Frühling \\u2192 \\u6625 \\U0001f600",
    "C": "Fr\\xfchling \\u2192 \\u6625 \\U0001f600",
    "utf-8": NAME,
}
ENCODINGS = {"strict": "cp1252", "C": "ascii", "utf-8": "utf-8"}


DATABASE = "terminal_encodings"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def north(
    postgres_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """One installation for all terminals."""
    psql(postgres_url, f"CREATE DATABASE {DATABASE} TEMPLATE {template}")
    database = postgres_url.replace("@/postgres?", f"@/{DATABASE}?")
    log = tmp_path_factory.mktemp("north") / "serve.log"
    with EmbeddedBroker() as broker:
        async with installed(database, broker.url, log) as installation:
            fill(installation)
            yield installation
    psql(postgres_url, f"DROP DATABASE {DATABASE} WITH (FORCE)")


def fill(north: Installation) -> None:
    """Make an object of each kind with the name."""
    north.do("firmware", "add", "http://h/f", "--version", f"2.0 {NAME}", "--device-type", NAME)
    north.do("device-group", "put", "all", "dev-1")
    psql(north.database, f"UPDATE devices SET device_type = '{NAME}'")
    north.do("campaign", "create", NAME, "--firmware", f"2.0 {NAME}", "--group", "all")
    psql(north.database, f"UPDATE ota_device_status SET error_message = '{NAME}'")
    psql(
        north.database,
        "INSERT INTO ota_quarantine (tenant_id, device_id, reason, payload)"
        f" VALUES ('{TENANT}', 'dev-1', 'no JSON', convert_to('{NAME}', 'UTF8'))",
    )
    psql(north.database, f"UPDATE rollwave_api_keys SET name = '{NAME}'")


LISTS = (
    ["firmware", "list"],
    ["campaign", "list"],
    ["campaign", "show", "1"],
    ["campaign", "devices", "1"],
    ["quarantine", "list"],
    ["apikey", "list", "--tenant", TENANT],
)


@pytest.mark.parametrize("terminal", TERMINALS)
def test_what_commands_print_is_printed_in_every_terminal_encoding(
    north: Installation, terminal: str, tmp_path: Path
) -> None:
    lists(north, terminal)
    watch(north, terminal)
    errors_and_help(north, terminal, tmp_path)


def lists(north: Installation, terminal: str) -> None:
    for words in LISTS:
        done = on(terminal, north, *words)
        assert (done.returncode, done.stderr) == (0, b""), words
        assert SHOWN[terminal] in done.stdout.decode(ENCODINGS[terminal]), words
    for words in (["firmware", "list"], ["campaign", "show", "1"]):
        done = on(terminal, north, *words, "-o", "json")
        assert NAME in json.dumps(json.loads(done.stdout), ensure_ascii=False), words


def watch(north: Installation, terminal: str) -> None:
    watched = on(terminal, north, "campaign", "watch", "1", "--timeout", "0")
    assert (watched.returncode, watched.stderr) == (4, b"")
    seen = seen_on_a_terminal(terminal, north, "campaign", "watch", "1", "--timeout", "0")
    assert SHOWN[terminal] in seen.decode(ENCODINGS[terminal])


def errors_and_help(north: Installation, terminal: str, folder: Path) -> None:
    table = folder / "devices.csv"
    table.write_text(f"device_id\n{NAME}\n")
    for words in (
        ["device-group", "import", f"all {terminal}", str(table)],
        ["firmware", "add", "http://h/other", "--version", f"2.0 → {terminal}", "--device-type", NAME],
        ["campaign", "create", NAME, "--firmware", "→", "--group", "all"],
    ):
        assert b"Traceback" not in on(terminal, north, *words).stderr, words
    assert on(terminal, north, "campaign", "create", "--help").returncode == 0
    assert b"Traceback" not in on(terminal, north, "campaign", "list", "--nope", NAME).stderr


def on(terminal: str, north: Installation, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program(), *arguments],
        env=environment(**north.env) | TERMINALS[terminal],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


def seen_on_a_terminal(terminal: str, north: Installation, *arguments: str) -> bytes:
    screen, end = pty.openpty()
    with os.fdopen(screen, "rb", buffering=0) as shown:
        running = subprocess.Popen(
            [program(), *arguments],
            env=environment(**north.env) | TERMINALS[terminal] | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=subprocess.DEVNULL,
            stdout=end,
            stderr=end,
        )
        os.close(end)
        seen = b""
        with suppress(OSError):  # The terminal raises this when the other end is closed.
            while part := shown.read(4096):
                seen += part
    running.wait(30)
    return seen
