"""The broker: reached, over TLS, and letting the engine do its work and strangers nothing."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from rollwave.doctor.finding import Finding, State, attempt, ok, problem, warning
from rollwave.errors import BrokerUnavailable, RollwaveError
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import STATUS_FILTER, command_topic
from rollwave.settings import Settings

NOBODY = "rollwave-doctor"
"""A tenant and a device that do not exist: what is sent there reaches no one."""

_ENGINE_ACL = (
    "Let the engine's user subscribe to tenant/+/device/+/ota/status and publish to tenant/+/device/+/ota: "
    "deploy/ has the ACL for each broker."
)


async def examine_broker(settings: Settings) -> list[Finding]:
    """Every check of the broker, as far as one can get."""
    try:
        broker = Broker.from_settings(settings)
    except RollwaveError as error:
        return [problem("broker", str(error), error.hint)]
    reached = await attempt("broker", _reached(broker))
    findings = [reached, _tls(broker)]
    if reached.state is State.PROBLEM:
        return findings
    return [
        *findings,
        await attempt("engine's reports", _may_subscribe(broker, settings), _ENGINE_ACL),
        await attempt("engine's commands", _may_publish(broker), _ENGINE_ACL),
        await attempt("strangers", _strangers(broker)),
    ]


async def _reached(broker: Broker) -> Finding:
    async with Session.connect(broker):
        return ok("broker", f"{broker.address} lets the engine in")


def _tls(broker: Broker) -> Finding:
    if broker.tls is not None:
        return ok("TLS", "used, and the broker's certificate is verified")
    if _is_loopback(broker.host):
        return ok("TLS", f"not needed: {broker.host} is this machine")
    return warning(
        "TLS",
        f"passwords and commands go to {broker.host} as plain text",
        "Use mqtts:// in MQTT_BROKER_URL, and MQTT_CA_CERT where the CA is your own.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _may_subscribe(broker: Broker, settings: Settings) -> Finding:
    topic_filter = f"$share/{NOBODY}/{STATUS_FILTER}" if settings.listener_slots > 1 else STATUS_FILTER
    async with Session.connect(broker) as session:
        await session.subscribe(topic_filter)
    return ok("engine's reports", f"it may subscribe to {topic_filter}")


async def _may_publish(broker: Broker) -> Finding:
    topic = command_topic(NOBODY, NOBODY)
    async with Session.connect(broker) as session:
        await (await session.publish(topic, b"")).acknowledged()
    return ok("engine's commands", "it may publish to tenant/+/device/+/ota")


async def _strangers(broker: Broker) -> Finding:
    if broker.username is not None:
        try:
            async with Session.connect(replace(broker, username=None, password=None)):
                pass
        except BrokerUnavailable:
            return ok("strangers", "the broker lets nobody in without a name")
    return warning(
        "strangers",
        "the broker lets anybody in who gives no name",
        "Make everybody log in (Mosquitto: allow_anonymous false), and set MQTT_USERNAME and MQTT_PASSWORD.",
    )
