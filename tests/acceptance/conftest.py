"""A PostgreSQL server whose clock tests move, with a migrated database for each test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from rollwave.store.migrate import migrate
from tests.moved_clock import Clock, postgres_with_clock
from tests.servers import debian_faketime, server_folder

TEMPLATE = "moved_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def clock_server() -> Iterator[tuple[str, Clock]]:
    """The URL of the server, and its clock."""
    library = debian_faketime()
    assert library, "libfaketime is not installed: scripts/system-packages installs it"
    with server_folder() as folder:
        clock = Clock(folder / "offset")
        with postgres_with_clock(folder, library, clock) as server:
            asyncio.run(_execute(server.url, f"CREATE DATABASE {TEMPLATE}"))
            asyncio.run(migrate(_named(server.url, TEMPLATE)))
            yield server.url, clock


@pytest.fixture
def clock(faketime: tuple[str, Clock]) -> Clock:
    """The clock of :func:`moved_database`, which runs as the machine's does until the test moves it."""
    return faketime[1]


@pytest.fixture
def faketime(clock_server: tuple[str, Clock]) -> tuple[str, Clock]:
    """The server, for one test. Tests with this fixture are left out where libfaketime is not installed."""
    clock_server[1].reset()
    return clock_server


@pytest.fixture
async def moved_database(faketime: tuple[str, Clock]) -> AsyncIterator[str]:
    """The URL of a migrated database on the server whose clock the test moves."""
    url, name = faketime[0], f"moved_{next(_numbers)}"
    await _execute(url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    try:
        yield _named(url, name)
    finally:
        await _execute(url, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _named(url: str, database: str) -> str:
    return url.replace("@/postgres?", f"@/{database}?")
