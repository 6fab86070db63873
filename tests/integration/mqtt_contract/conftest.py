"""Fixtures: an adapter, a broker, and unique names."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.mqtt_contract.adapters import ADAPTERS, Adapter
from tests.integration.mqtt_contract.brokers import KINDS, Kind, RunningBroker
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
def shared_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningBroker]]:
    """Brokers by name. Each is started at its first use."""
    with ExitStack() as running:
        yield _Started(running, tmp_path_factory)


class _Started(dict[str, RunningBroker]):
    def __init__(self, running: ExitStack, folders: pytest.TempPathFactory) -> None:
        super().__init__()
        self._running, self._folders = running, folders

    def __missing__(self, unique_name: str) -> RunningBroker:
        kind = next(each for each in KINDS if each.name == unique_name)
        self[unique_name] = self._running.enter_context(kind.start(self._folders.mktemp(unique_name)))
        return self[unique_name]


@pytest.fixture
def shared_broker(kind: Kind, shared_brokers: dict[str, RunningBroker]) -> RunningBroker:
    """A broker that other tests use, too. A test must not stop it."""
    server = shared_brokers[kind.name].server
    return RunningBroker(kind, server, kind.address(server))


@pytest.fixture
async def broker_proxy(shared_broker: RunningBroker) -> AsyncIterator[Proxy]:
    """A proxy to the shared broker."""
    async with proxy(f"mqtt://{shared_broker.broker.address}") as broker_proxy:
        yield broker_proxy


@pytest.fixture
def unique_name() -> str:
    """A name for client ids and topics that no other test uses."""
    return f"contract-{next(_numbers)}"
