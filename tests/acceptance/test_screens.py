"""What the command line shows, compared with files: on terminals of 80 and 140 columns, without colours, and piped.

`pytest tests/acceptance/test_screens.py --renew-screens` writes the files anew. Look at the difference.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from tests.installation import Installation
from tests.screens import SCREENS, masked, settle_times, standing_still
from tests.support import rollwave
from tests.terminal import colours_of, shown, text_of

DATABASE = "screens"

NARROW, WIDE = 80, 140
COMMANDS = {
    "watch": ("campaign", "watch", "1", "--timeout", "0"),
    "watch-aborted": ("campaign", "watch", "2"),
    "list": ("campaign", "list"),
    "show": ("campaign", "show", "1"),
    "waiting": ("campaign", "waiting", "1"),
    "explain": ("campaign", "explain", "1", "pump-60"),
    "causes": ("campaign", "causes", "1"),
    "devices": ("campaign", "devices", "1", "--status", "FAILED", "--limit", "3"),
    "device-show": ("device", "show", "pump-06"),
    "search": ("search", "gate"),
    "help": ("campaign", "watch", "--help"),
    "names": ("campaign", "list", "-o", "name"),
    "dry-run": ("campaign", "create", "-f", "campaign.yaml", "--dry-run"),
    "unknown": ("campaign", "show", "99"),
}
ON_A_TERMINAL = [
    *(
        (name, NARROW)
        for name in ("watch", "watch-aborted", "list", "show", "explain", "devices", "device-show", "help")
    ),
    *((name, WIDE) for name in ("watch", "list", "show")),
]
PIPED = ("watch", "list", "waiting", "causes", "devices", "search", "names", "dry-run", "unknown")
EXIT_CODES = {"watch": 4, "watch-aborted": 3, "unknown": 1}

CAMPAIGN = """\
name: Autumn release
firmware: "2.4.1"
group: pumps
policy:
  waves:
  - {name: canary, size: 10%}
  - {name: rest}
  pace: {per_minute: 600}
  guardrails:
  - {name: boots, threshold: 5%, action: pause}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def north(postgres_url: str, template: str) -> AsyncIterator[Installation]:
    """One installation for all screens. Its campaigns do not change any more."""
    folder = Path(tempfile.mkdtemp(prefix="rollwave-tests-"))
    server = await asyncpg.connect(postgres_url)
    try:
        await server.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {template}")
        database = postgres_url.replace("@/postgres?", f"@/{DATABASE}?")
        async with standing_still(database, folder) as installation:
            await settle_times(database)
            (folder / "campaign.yaml").write_text(CAMPAIGN)
            file = str(folder / "campaign.yaml")
            yield replace(installation, env=installation.env | {"CAMPAIGN_FILE": file})
        await server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    finally:
        await server.close()
        shutil.rmtree(folder)


@pytest.fixture
def same(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a screen with its file, or write the file."""
    renew: bool = request.config.getoption("--renew-screens")

    def compare(name: str, text: str) -> None:
        file, seen = SCREENS / f"{name}.txt", masked(text)
        if renew:
            file.write_text(seen, "utf-8")
        assert seen == file.read_text("utf-8"), f"{file.name} differs: --renew-screens writes it anew"

    return compare


@pytest.mark.parametrize(("name", "columns"), ON_A_TERMINAL)
def test_a_terminal_shows(north: Installation, same: Callable[[str, str], None], name: str, columns: int) -> None:
    code, screen = shown(*COMMANDS[name], env=north.env, columns=columns)
    assert code == EXIT_CODES.get(name, 0)
    colours = "".join(f"{line}\n" for line in colours_of(screen))
    same(f"{name}-{columns}", f"{text_of(screen)}\n--- colours\n{colours}")


@pytest.mark.parametrize("name", ["watch", "list"])
def test_without_colours_states_differ_by_their_marks(
    north: Installation, same: Callable[[str, str], None], name: str
) -> None:
    code, screen = shown(*COMMANDS[name], env=north.env | {"NO_COLOR": "1"}, columns=NARROW)
    assert code == EXIT_CODES.get(name, 0)
    assert list(colours_of(screen)) == []
    same(f"{name}-no-color", text_of(screen))


def test_a_terminal_with_ascii_only_shows_the_same_in_ascii(
    north: Installation, same: Callable[[str, str], None]
) -> None:
    _, screen = shown(*COMMANDS["watch"], env=north.env, columns=NARROW, lines=24, utf8=False)
    assert text_of(screen).isascii()
    same("watch-ascii", text_of(screen))


@pytest.mark.parametrize("name", PIPED)
def test_a_pipe_gets_data_and_standard_error_the_rest(
    north: Installation, same: Callable[[str, str], None], name: str
) -> None:
    words = [north.env["CAMPAIGN_FILE"] if word == "campaign.yaml" else word for word in COMMANDS[name]]
    done = rollwave(*words, env=north.env)
    assert done.returncode == EXIT_CODES.get(name, 0), done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    same(f"{name}-piped", f"{done.stdout}--- standard error\n{done.stderr}")
