"""The broker of the compose stack: one login per device, and one for the simulated fleet of one tenant."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress

import pytest

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import STATUS_FILTER, ask_topic, command_topic, status_topic
from tests.compose import Stack, StackMosquitto
from tests.support import eventually

ENGINE, FLEET = "rollwave", "fleet"
OWN = ("demo", "pump-1")
DEVICE = "demo/device/pump-1"


@pytest.fixture
def stack_mosquitto(stack: Stack) -> Iterator[StackMosquitto]:
    for tenant, device in (OWN, ("demo", "pump-2"), ("north", "pump-1")):
        stack.prepare("--device", tenant, device)
    stack.install_keys()
    with StackMosquitto(stack) as broker:
        yield broker


async def taken(broker: Broker, topic: str) -> bool:
    """Whether ``broker`` accepts a message on ``topic``."""
    async with Session.connect(broker) as session:
        receipt = await session.publish(topic, b"x")
        await receipt.wait()
        assert receipt.taken or receipt.refused
        return receipt.taken


async def heard(session: Session, last: str) -> set[str]:
    """The topics of the messages received, up to a message on ``last``."""
    topics = set()
    async for message in session.messages():
        topics.add(message.topic)
        if message.topic == last:
            break
    return topics


@pytest.mark.usefixtures("stack_mosquitto")
async def test_a_device_login_can_use_only_its_own_topics(stack: Stack) -> None:
    device, engine = stack.login(DEVICE), stack.login(ENGINE)
    assert await taken(device, status_topic(*OWN))
    assert await taken(device, ask_topic(*OWN))
    for other in (("demo", "pump-2"), ("north", "pump-1")):
        assert not await taken(device, status_topic(*other))
        assert not await taken(device, command_topic(*other))
    assert not await taken(device, command_topic(*OWN))
    async with Session.connect(device) as session:
        for topic_filter in ("#", "tenant/+/device/+/ota", STATUS_FILTER, command_topic(*OWN)):
            await session.subscribe(topic_filter)
        for target in (("demo", "pump-2"), ("north", "pump-1"), OWN):
            assert await taken(engine, command_topic(*target))
        assert await heard(session, command_topic(*OWN)) == {command_topic(*OWN)}


@pytest.mark.usefixtures("stack_mosquitto")
async def test_the_fleet_login_can_act_for_devices_of_one_tenant(stack: Stack) -> None:
    fleet, engine = stack.login(FLEET), stack.login(ENGINE)
    assert await taken(fleet, status_topic("demo", "dev-7"))
    assert not await taken(fleet, status_topic("north", "pump-1"))
    assert not await taken(fleet, command_topic("demo", "dev-7"))
    async with Session.connect(fleet) as session:
        await session.subscribe("#")
        for target in (("north", "pump-1"), ("demo", "dev-7")):
            assert await taken(engine, command_topic(*target))
        assert await heard(session, command_topic("demo", "dev-7")) == {command_topic("demo", "dev-7")}


async def test_a_new_login_works_after_a_sighup(stack: Stack, stack_mosquitto: StackMosquitto) -> None:
    stack.prepare("--device", "demo", "pump 9")
    late = stack.login("demo/device/pump 9")
    with pytest.raises(BrokerUnavailable):
        await taken(late, "anything")
    stack.install_keys()
    stack_mosquitto.reload()

    async def let_in() -> bool:
        with suppress(BrokerUnavailable):
            return await taken(late, status_topic("demo", "pump 9"))
        return False

    await eventually(let_in, what="the broker knows the new login")


def test_preparing_again_keeps_existing_secrets(stack: Stack) -> None:
    before = {path.name: path.read_bytes() for path in stack.secrets.iterdir()}
    first = stack.prepare("--device", "demo", "pump-1")
    stack.prepare()
    stack.prepare("--fleet")
    assert stack.prepare("--device", "demo", "pump-1") == first
    after = {path.name: path.read_bytes() for path in stack.secrets.iterdir()}
    assert after | {"mosquitto.logins": b""} == before | {"mosquitto.logins": b""}


def test_secret_files_are_readable_by_one_user_only(stack: Stack) -> None:
    assert stat.S_IMODE(stack.secrets.stat().st_mode) == 0o700
    open_files = {path.name for path in stack.secrets.iterdir() if path.stat().st_mode & 0o077}
    assert open_files == {"ca.crt"}
    for path in stack.keys.rglob("*"):
        assert not path.stat().st_mode & 0o077, path
    installed = (stack.keys / "mosquitto/rollwave.passwords").read_text()
    plain = [line.rsplit(":", 1)[1] for line in (stack.secrets / "mosquitto.logins").read_text().splitlines()]
    assert not any(password in installed for password in plain)
