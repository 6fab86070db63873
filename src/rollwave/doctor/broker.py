"""Checks of the broker: connection, TLS, the engine's rights, and anonymous access."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from rollwave.doctor.devices import Device, heard
from rollwave.doctor.finding import Finding, State, attempt, ok, problem, warning
from rollwave.errors import BrokerUnavailable, RollwaveError
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import STATUS_FILTER, command_topic
from rollwave.settings import Settings

NOBODY = "rollwave-doctor"
"""A tenant and a device that do not exist, so that no device receives the test messages."""

_ENGINE_ACL = (
    "Let the engine's user subscribe to tenant/+/device/+/ota/status and publish to tenant/+/device/+/ota: "
    "deploy/ has the ACL for each broker."
)


async def examine_broker(settings: Settings, device: Device | None = None) -> list[Finding]:
    """Run the checks of the broker. Checks that cannot run because of an earlier problem are left out.

    With ``device``, its login is used to check that commands arrive.
    """
    try:
        broker = Broker.from_settings(settings)
    except RollwaveError as error:
        return [problem("broker", str(error), error.hint)]
    reached = await attempt("broker", _reached(broker))
    findings = [reached, _tls(broker, certificate=bool(settings.mqtt_client_cert))]
    if broker.warning:
        findings.append(warning("broker's settings", str(broker.warning), broker.warning.hint))
    if reached.state is State.PROBLEM:
        return findings
    return [
        *findings,
        await attempt("engine's reports", _may_subscribe(broker, settings), _ENGINE_ACL),
        await attempt("engine's commands", _may_publish(broker, *_receiver(settings, device)), _ENGINE_ACL),
        await attempt("strangers", _strangers(settings)),
    ]


def without_certificate(settings: Settings) -> Broker:
    """The broker without the engine's client certificate.

    Raises:
        ConfigurationError: the settings cannot be used.
    """
    bare = {"mqtt_client_cert": None, "mqtt_client_key": None}
    return Broker.from_settings(settings.model_copy(update=bare))


def _receiver(settings: Settings, device: Device | None) -> tuple[Broker | None, str]:
    """The login that receives the test command, and the topic of that command."""
    if device is None:
        return None, command_topic(NOBODY, NOBODY)
    return device.login(without_certificate(settings)), device.commands


async def _reached(broker: Broker) -> Finding:
    async with Session.connect(broker):
        return ok("broker", f"{broker.address} accepts the engine")


def _tls(broker: Broker, *, certificate: bool) -> Finding:
    if broker.tls is not None:
        shown = "; the engine shows a certificate too" if certificate else ""
        return ok("TLS", f"used, and the broker's certificate is verified{shown}")
    if _is_loopback(broker.host):
        return ok("TLS", f"not needed: {broker.host} is this machine")
    return warning(
        "TLS",
        f"passwords and commands go to {broker.host} as plain text",
        "Use mqtts:// in MQTT_BROKER_URL, and MQTT_CA_CERT if you have a CA of your own.",
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
    # Mosquitto grants a subscription that its ACL forbids, and then delivers nothing.
    return ok(
        "engine's reports", f"the broker allows {topic_filter}; whether reports arrive is tested with devices' logins"
    )


async def _may_publish(broker: Broker, device: Broker | None, topic: str) -> Finding:
    check = "engine's commands"
    if broker.protocol == "5":
        async with Session.connect(broker) as session:
            await (await session.publish(topic, b"")).acknowledged()
        return ok(check, "it may publish to tenant/+/device/+/ota")
    # On MQTT 3.1.1 a broker acknowledges also messages that it drops: only an arriving message is proof.
    try:
        async with Session.connect(device or broker) as receiver, Session.connect(broker) as session:
            await receiver.subscribe(topic)
            await session.publish(topic, b"")
            await heard(receiver, until=topic)
    except RollwaveError as error:
        if device:
            return problem(check, f"commands to {topic} do not arrive: {error}", _ENGINE_ACL)
    else:
        return ok(check, f"commands to {topic} arrive")
    return warning(
        check,
        "unknown: on MQTT 3.1.1 a broker acknowledges also forbidden messages, and the test command did not arrive",
        f"Use --device-a and --device-b, to test whether commands arrive there. {_ENGINE_ACL}",
    )


async def _strangers(settings: Settings) -> Finding:
    if settings.mqtt_client_cert or Broker.from_settings(settings).username is not None:
        try:
            async with Session.connect(replace(without_certificate(settings), username=None, password=None)):
                pass
        except BrokerUnavailable:
            return ok("strangers", "the broker refuses clients without a user name or certificate")
    return warning(
        "strangers",
        "the broker accepts clients without a user name",
        "Require a login (Mosquitto: allow_anonymous false), and set MQTT_USERNAME and MQTT_PASSWORD.",
    )
