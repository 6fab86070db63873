"""Real servers for every test. A test that needs none starts none."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from tests import deadlocks
from tests.compose import Stack
from tests.engine import subscribed_listener
from tests.network import has_namespaces
from tests.ports import free_port
from tests.roles import roles_restored
from tests.servers import (
    Mosquitto,
    debian_faketime,
    debian_mosquitto,
    debian_pgbouncer,
    debian_postgres,
    server_folder,
    start_postgres,
)
from tests.shipped import ShippedMosquitto
from tests.tools import Tool

HERE = Path(__file__).parent
TEMPLATE = "rollwave_template"
TOOLS = {"promtool": "promtool", "stack_prometheus": "prometheus", "systemd_analyze": "systemd-analyze"}
"""Debian's programs that run or check the files in ``deploy/``, by fixture."""
PROGRAMS = TOOLS | {"chromium": "chromium"}
SLOW_FIRST = ("chaos", "acceptance", "browser", "integration", "unit")
"""The folders of tests in the order in which they run, so that no process is left with a long test at the end."""
_numbers = itertools.count(1)

# On a busy machine the first example takes seconds. This says nothing about the code under test.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--outage",
        type=float,
        default=4.0,
        help="seconds that faults of chaos tests last, at least",
    )
    parser.addoption(
        "--renew-screens",
        action="store_true",
        help="write the files that screens of the command line are compared with",
    )


@pytest.fixture
def outage(request: pytest.FixtureRequest) -> float:
    """Seconds for which a server or the network is unavailable, at least as long as the engine needs to notice it."""
    seconds: float = request.config.getoption("--outage")
    return seconds


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by its folder, slow ones first. Outside CI, leave out tests whose server is not installed."""
    for item in items:
        item.add_marker(_folder(item))
    items.sort(key=lambda item: SLOW_FIRST.index(_folder(item)))
    if os.environ.get("CI") != "true":
        left_out = [item for item in items if _lacks_server(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).parts[0]


def pytest_collection_finish() -> None:
    """What was collected stays until the end: garbage collections need not look at it again."""
    gc.freeze()


def _lacks_server(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return (
        (any("mosquitto" in name for name in (*fixtures, *map(str, params.values()))) and debian_mosquitto() is None)
        or ("stack" in fixtures and not (debian_mosquitto() and debian_postgres()))
        or any(tool in fixtures and shutil.which(name) is None for tool, name in PROGRAMS.items())
        or ("debian" in params.values() and debian_postgres() is None)
        or ("pgbouncer" in fixtures and debian_pgbouncer() is None)
        or ("faketime" in fixtures and debian_faketime() is None)
        or ("small_disk" in fixtures and os.geteuid() != 0)
        or ("networks" in fixtures and not (has_namespaces() and debian_mosquitto()))
    )


@pytest.fixture(scope="session", autouse=True)
def ports() -> Iterator[None]:
    """Embedded brokers, too, use ports that no other test process uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rollwave.embedded.broker.free_port", free_port)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_unexpected_deadlocks() -> Iterator[None]:
    """Fail the session if any server met a deadlock that no test provoked."""
    with deadlocks.watching_servers() as found:
        yield
    assert found == []


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A running server: PostgreSQL 18, or Debian's.

    ``pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)`` runs on both.
    """
    with server_folder() as folder, start_postgres(getattr(request, "param", "embedded"), folder) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: EmbeddedPostgres) -> str:
    return postgres.url


@pytest.fixture(scope="session")
def postgres_log(postgres: EmbeddedPostgres) -> Path:
    return postgres.log


@pytest.fixture(scope="session")
def template(postgres_url: str) -> str:
    """The name of a migrated database without connections."""
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {TEMPLATE}"))
    asyncio.run(migrate(_named(postgres_url, TEMPLATE)))
    return TEMPLATE


@pytest.fixture
async def server_url(postgres_url: str, template: str) -> AsyncIterator[str]:
    """The URL of the server, for one test. It has the engine's roles, and what the test does to roles is undone."""
    assert template
    async with roles_restored(postgres_url):
        yield postgres_url


@pytest.fixture
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async for url in _fresh_database(server_url, "template1"):
        yield url


@pytest.fixture
async def database(server_url: str, template: str) -> AsyncIterator[str]:
    """The URL of a migrated database, used by one test only."""
    async for url in _fresh_database(server_url, template):
        yield url


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with create_pool(database) as pool:
        yield pool


@pytest.fixture
async def listener_subscribed(pool: Pool) -> AsyncIterator[None]:
    """A subscribed listener, for tests that run only the sending part of a worker: nothing is sent without one."""
    async with subscribed_listener(pool):
        yield


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """A broker used by one test only, without sessions and retained messages."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """Debian's Mosquitto, used by one test only."""
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def shipped_mosquitto(tmp_path: Path) -> Iterator[ShippedMosquitto]:
    """Debian's Mosquitto with the configuration in ``deploy/``."""
    with ShippedMosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """The compose stack's files, prepared. Nothing runs yet."""
    return Stack(tmp_path)


@pytest.fixture
def promtool() -> Tool:
    """Prometheus's program that checks rules."""
    return Tool(TOOLS["promtool"])


@pytest.fixture
def systemd_analyze() -> Tool:
    """Systemd's program that checks units."""
    return Tool(TOOLS["systemd_analyze"])


async def _fresh_database(server: str, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await _execute(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield _named(server, name)
    finally:
        await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _named(url: str, database: str) -> str:
    return url.replace("@/postgres?", f"@/{database}?")
