"""An adapter, a broker, and names of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.mqtt_contract.adapters import ADAPTERS, Adapter
from tests.integration.mqtt_contract.brokers import KINDS, Kind, Served
from tests.proxy import Proxy, proxy

_numbers = itertools.count(1)


@pytest.fixture(params=list(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def shared_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """Brokers by name, started when first asked for."""
    with ExitStack() as running:
        yield _Started(running, tmp_path_factory)


class _Started(dict[str, Served]):
    def __init__(self, running: ExitStack, folders: pytest.TempPathFactory) -> None:
        super().__init__()
        self._running, self._folders = running, folders

    def __missing__(self, name: str) -> Served:
        kind = next(each for each in KINDS if each.name == name)
        self[name] = self._running.enter_context(kind.start(self._folders.mktemp(name)))
        return self[name]


@pytest.fixture
def served(kind: Kind, shared_brokers: dict[str, Served]) -> Served:
    """A broker that other tests use too: it is not to be stopped."""
    server = shared_brokers[kind.name].server
    return Served(kind, server, kind.address(server))


@pytest.fixture
async def between(served: Served) -> AsyncIterator[Proxy]:
    """A proxy to the shared broker."""
    async with proxy(f"mqtt://{served.broker.address}") as between:
        yield between


@pytest.fixture
def name() -> str:
    """For client ids and topics that no other test uses."""
    return f"contract-{next(_numbers)}"
