"""Checks of the broker's ACL with the logins of two devices. Only the ACL separates devices from each other.

The test messages are empty or blank: the engine and devices ignore them. A broker may grant a subscription and deliver
nothing, or acknowledge a message and drop it, so the checks look only at the messages that arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Self

from rollwave.doctor.finding import Finding, attempt, ok, problem, warning
from rollwave.domain.ids import is_valid_id
from rollwave.errors import BrokerUnavailable, InvalidInput, RollwaveError
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.topics import STATUS_FILTER, command_topic, status_topic

ARRIVAL_TIMEOUT_SECONDS = 5.0
"""Maximum time for an allowed message to arrive, in seconds."""

_FORGED = b""
_GENUINE = b" "

_FIX_ACL = (
    "Allow each device only its own two topics: publish reports, and subscribe to commands. "
    "deploy/ has the ACL for each broker."
)


@dataclass(frozen=True, slots=True)
class Device:
    """A device's login, and the tenant and device whose topics it may use."""

    username: str
    password: str = field(repr=False)
    tenant: str
    name: str

    @classmethod
    def of(cls, username: str, password: str, tenant: str | None) -> Self:
        """Read the user name: ``{tenant}/device/{device}``, or the device's id if ``tenant`` is given.

        Raises:
            InvalidInput: the user name has neither form.
        """
        match username.split("/"):
            case [owner, "device", name]:
                device = cls(username, password, owner, name)
            case _:
                device = cls(username, password, tenant or "", username)
        if not (is_valid_id(device.tenant) and is_valid_id(device.name)):
            raise InvalidInput(
                f"the user name {username!r} contains no tenant and device",
                hint="Use a user name like TENANT/device/DEVICE, or the id of a device with --tenant.",
            )
        return device

    @property
    def reports(self) -> str:
        """The topic of its reports."""
        return status_topic(self.tenant, self.name)

    @property
    def commands(self) -> str:
        """The topic of its commands."""
        return command_topic(self.tenant, self.name)

    def login(self, broker: Broker) -> Broker:
        """The broker with this device's login."""
        return replace(broker, username=self.username, password=self.password)


async def examine_devices(engine: Broker, bare: Broker | None, a: Device, b: Device) -> list[Finding]:
    """Check what each device may do on the other's topics.

    ``bare``: the broker without the engine's client certificate. None: the engine has none.
    """
    findings: list[Finding] = []
    if bare and (shut_out := await _shut_out(bare, a)):
        return [shut_out]
    guest = bare or engine
    if a.tenant == b.tenant:
        findings.append(
            warning(
                "devices",
                f"both belong to tenant {a.tenant}: the separation of tenants is not tested",
                "Use devices of two tenants.",
            )
        )
    for me, other in ((a, b), (b, a)):
        findings += [
            await attempt(f"{me.username}, own topics", _own_topics(engine, me.login(guest), me)),
            await attempt(f"{me.username}, forging reports", _forged_report(engine, me.login(guest), me, other)),
            await attempt(f"{me.username}, forging commands", _forged_command(engine, guest, me, other)),
            await attempt(f"{me.username}, listening in", _listening_in(engine, guest, me, other)),
            await attempt(f"{me.username}, retaining reports", _retained_report(engine, me.login(guest), me)),
        ]
    return findings


async def _shut_out(guest: Broker, device: Device) -> Finding | None:
    try:
        async with Session.connect(device.login(guest)):
            return None
    except BrokerUnavailable as error:
        return warning(
            "devices",
            f"not tested: the broker refuses {device.username} without a client certificate, and the engine's "
            f"certificate must not be used for a device ({error})",
            "Test the devices' certificates with mosquitto_pub and mosquitto_sub, or use a listener with passwords.",
        )


async def _own_topics(engine: Broker, login: Broker, me: Device) -> Finding:
    check = f"{me.username}, own topics"
    async with Session.connect(engine) as up, Session.connect(login) as down:
        await up.subscribe(me.reports)
        await down.subscribe(me.commands)
        for publisher, receiver, topic in ((down, up, me.reports), (up, down, me.commands)):
            if not await _taken(publisher, topic, _FORGED):
                return problem(check, f"publishing to {topic} is refused", _FIX_ACL)
            await heard(receiver, until=topic)
    return ok(check, "its reports and its commands arrive")


async def _forged_report(engine: Broker, login: Broker, me: Device, other: Device) -> Finding:
    check = f"{me.username}, forging reports"
    async with Session.connect(engine) as receiver:
        await receiver.subscribe(me.reports, other.reports)
        async with Session.connect(login) as session, _unless_lost():
            if await _taken(session, other.reports, _FORGED):
                await _taken(session, me.reports, _FORGED)
                if _FORGED in [each.payload for each in await heard(receiver, until=me.reports) if _of(each, other)]:
                    return problem(check, f"it can report for {other.username}", _FIX_ACL)
    return ok(check, f"it cannot report for {other.username}")


async def _forged_command(engine: Broker, guest: Broker, me: Device, other: Device) -> Finding:
    check = f"{me.username}, forging commands"
    async with Session.connect(engine) as sender, Session.connect(other.login(guest)) as receiver:
        await receiver.subscribe(other.commands)
        async with Session.connect(me.login(guest)) as session, _unless_lost():
            if await _taken(session, other.commands, _FORGED):
                await _taken(sender, other.commands, _GENUINE)
                if _FORGED in [each.payload for each in await heard(receiver, until=other.commands, payload=_GENUINE)]:
                    return problem(check, f"it can send commands to {other.username}", _FIX_ACL)
    return ok(check, f"it cannot send commands to {other.username}")


async def _listening_in(engine: Broker, guest: Broker, me: Device, other: Device) -> Finding:
    check = f"{me.username}, listening in"
    for topic_filter in (other.commands, "tenant/+/device/+/ota", STATUS_FILTER, "#"):
        async with (
            Session.connect(engine) as sender,
            Session.connect(other.login(guest)) as reporter,
            Session.connect(me.login(guest)) as receiver,
            _unless_lost(),
        ):
            await receiver.subscribe(me.commands)
            await receiver.subscribe(topic_filter)
            await _taken(sender, other.commands, _FORGED)
            await _taken(reporter, other.reports, _FORGED)
            await _taken(sender, me.commands, _GENUINE)
            arrived = await heard(receiver, until=me.commands, payload=_GENUINE)
            if any(_of(each, other) for each in arrived):
                return problem(check, f"with {topic_filter} it receives messages of {other.username}", _FIX_ACL)
    return ok(check, f"it receives no messages of {other.username}")


async def _retained_report(engine: Broker, login: Broker, me: Device) -> Finding:
    check = f"{me.username}, retaining reports"
    async with Session.connect(engine) as receiver:
        await receiver.subscribe(me.reports)
        async with Session.connect(login) as session, _unless_lost():
            if await _taken(session, me.reports, _GENUINE, retain=True):
                await _taken(session, me.reports, _FORGED, retain=True)  # also removes the stored message
                if _GENUINE in [each.payload for each in await heard(receiver, until=me.reports)]:
                    return warning(
                        check,
                        "the broker stores a report with the retain flag, and sends it again to later subscribers",
                        "The engine ignores retained messages, but on MQTT 3.1.1 not all are marked so. Switch "
                        "retaining off (Mosquitto: retain_available false; EMQX: mqtt.retain_available).",
                    )
    return ok(check, "the broker stores none of its reports")


def _of(incoming: Incoming, device: Device) -> bool:
    return incoming.topic in {device.reports, device.commands}


async def _taken(session: Session, topic: str, payload: bytes, *, retain: bool = False) -> bool:
    try:
        async with asyncio.timeout(ARRIVAL_TIMEOUT_SECONDS):
            receipt = await session.publish(topic, payload, retain=retain)
            await receipt.wait()
    except (BrokerUnavailable, TimeoutError):
        return False
    return receipt.taken


async def heard(session: Session, *, until: str, payload: bytes = _FORGED) -> list[Incoming]:
    """The messages that arrive, up to the one with this topic and payload.

    Raises:
        RollwaveError: that message does not arrive, so that the check has no result.
        BrokerUnavailable: the session was lost.
    """
    heard: list[Incoming] = []
    try:
        async with asyncio.timeout(ARRIVAL_TIMEOUT_SECONDS):
            async for incoming in session.messages():
                heard.append(incoming)
                if (incoming.topic, incoming.payload) == (until, payload):
                    return heard
    except TimeoutError:
        raise RollwaveError(f"nothing arrives on {until}", hint=_FIX_ACL) from None
    raise BrokerUnavailable("the session was lost")


@asynccontextmanager
async def _unless_lost() -> AsyncIterator[None]:
    """Treat a lost session or a refused subscription as a refusal: brokers do either."""
    try:
        yield
    except BrokerUnavailable:
        return
