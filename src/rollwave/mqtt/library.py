"""The only module that knows the MQTT library.

It turns the library's errors into our own, and works around the cancellations that the library loses.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import ssl
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, Self, TypeVar

from mqttium import FlowControlError, MQTTError, MQTTProtocolVersion, PublishRejectedError, QoS
from mqttium.api import AsyncClient, Message, Properties, PublishReceipt, SubscribeOptions
from mqttium.errors import ConnectRefusedError, PacketTooLargeError
from mqttium.transport.tcp import TcpTransport

from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.tasks import end, immune

__all__ = [
    "Client",
    "FlowControlError",
    "Message",
    "PacketTooLargeError",
    "PublishReceipt",
    "PublishRejectedError",
    "SubscribeOptions",
    "hint_of",
    "lasting_subscription",
    "properties",
    "read_attempt",
    "unavailable",
]

SESSION_EXPIRY_SECONDS = 7 * 86_400
"""Time for which the broker keeps a persistent session and its queue after the connection has ended."""

MAX_PACKET_BYTES = 2 * 1024 * 1024
"""Maximum size of a packet from the broker. Over MQTT 5 the broker is told, and drops larger ones."""

READ_AHEAD_BYTES = 2 * MAX_PACKET_BYTES
"""Maximum size of all messages that a session reads before the caller takes them (MQTT 5)."""

SUBSCRIBE_SECONDS = 300.0
"""Timeout of a subscription. Messages queued for the session may come before the broker's answer."""

CLOSE_SECONDS = 8.0
"""Timeout of closing a session. The library takes up to five seconds to send what is queued."""

_CANCEL_SECONDS, _CANCEL_AGAIN_SECONDS = 2.0, 0.05
"""Timeout of a cancelled call, and the time until it is cancelled again: the library loses some cancellations."""

_OPEN_SECONDS = 10.0
"""Timeout of opening a connection whose caller was cancelled."""

_EXPECTED_ERRORS = (MQTTError, OSError, EOFError)
"""The errors that the library raises when the connection or a request fails. Any other error is a bug."""

_LOGIN_CODES = frozenset({4, 5, 134, 135})
"""Reason codes for a refused login, of MQTT 3.1.1 and of MQTT 5: bad user name or password, not authorized."""

_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_ATTEMPT = "attempt"

_log = get_logger("mqtt")

T = TypeVar("T")


class Client(AsyncClient):
    """The library's client with our limits. Calls that may lose a cancellation go through :meth:`call`."""

    @classmethod
    def to(cls, broker: Broker, client_id: str, *, persistent: bool, manual_ack: bool, buffer: int) -> Self:
        """A client that is not connected yet."""
        limited = broker.protocol == "5"
        expiry = Properties({"session_expiry_interval": SESSION_EXPIRY_SECONDS}) if persistent and limited else None
        client = cls(
            client_id or f"rollwave-{os.getpid()}-{os.urandom(4).hex()}",
            protocol=_PROTOCOLS[broker.protocol],
            clean_start=not persistent,
            keepalive=broker.keepalive,
            ping_timeout=broker.keepalive / 2,
            username=broker.username,
            password=broker.password,
            connect_properties=expiry,
            # The largest Receive Maximum: Mosquitto 2.0.11 exceeds a smaller one, and the connection would be
            # closed for it. ``buffer`` is the bound: a full one leaves the socket unread.
            max_inbound_inflight=65_535,
            # A packet over the limit ends the connection, each time it is delivered. Over MQTT 3.1.1 the broker cannot
            # be told of a limit, so there is none but the broker's own.
            maximum_packet_size=MAX_PACKET_BYTES if limited else None,
            max_iterator_bytes=READ_AHEAD_BYTES if limited else None,
            subscribe_timeout=SUBSCRIBE_SECONDS,
            max_unacknowledged_messages=10_000,
            max_write_queue_bytes=4 * 1024 * 1024,
            manual_ack=manual_ack,
            max_iterator_messages=buffer,
        )
        client._transport_factory = _open_socket
        return client

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a call in which the library may lose a cancellation.

        It loses some while it connects and disconnects and, on Python 3.11, while an answer arrives
        (``asyncio.wait_for``). It loses none while it waits for messages, receipts, or room to publish.
        """
        return await immune(work, within=_CANCEL_SECONDS, cancel_again=_CANCEL_AGAIN_SECONDS)

    def abort(self) -> None:
        """Close the socket. Queued messages are not sent. The library's own tasks then end."""
        _abort(self._transport)

    async def close(self) -> None:
        """Disconnect within ``CLOSE_SECONDS``, otherwise abort. Raises no error of the socket.

        Raises:
            asyncio.CancelledError: the caller was cancelled. The connection is closed all the same.
        """
        closing = asyncio.create_task(self.disconnect())
        try:
            await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
        finally:
            try:
                await end(closing, within=_CANCEL_SECONDS, cancel_again=_CANCEL_AGAIN_SECONDS)
            finally:
                self.abort()
                if closing.done() and not closing.cancelled():
                    closing.exception()  # read, so that asyncio does not warn: the session has ended either way


async def _open_socket(host: str, port: int, *, ssl: Any = None) -> Any:
    """Open a connection. If the caller is cancelled, opening continues, and the connection is then closed.

    asyncio loses the socket if opening is cancelled at the moment it succeeds (``asyncio.staggered_race``).
    """
    connect = TcpTransport.connect if _knows_happy_eyeballs(asyncio.get_running_loop()) else _connect_plainly
    opening = asyncio.create_task(asyncio.wait_for(connect(host, port, ssl=ssl), _OPEN_SECONDS))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unused)
        raise


async def _connect_plainly(host: str, port: int, *, ssl: Any = None) -> TcpTransport:
    """Open a connection without the argument that only asyncio's own event loop knows."""
    return TcpTransport(*await asyncio.open_connection(host, port, ssl=ssl))


def _knows_happy_eyeballs(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the event loop knows the argument with which the library connects. uvloop does not."""
    try:
        return "happy_eyeballs_delay" in inspect.signature(loop.create_connection).parameters
    except ValueError:  # a compiled function without a signature
        return False


def _close_unused(opening: asyncio.Task[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        _abort(opening.result())


def _abort(transport: object) -> None:
    writer = getattr(transport, "_writer", None)
    if isinstance(writer, asyncio.StreamWriter):
        writer.transport.abort()


def unavailable(what: str, error: Exception, *, hint: str = "") -> BrokerUnavailable:
    """Convert an error of the library to one of ours, which the caller raises. A bug is logged with its traceback.

    Args:
        what: the beginning of the error message, such as "publish failed".
        error: the error of the library.
        hint: what the operator should do.
    """
    if not isinstance(error, _EXPECTED_ERRORS):
        _log.error("mqtt_library_error", error=f"{type(error).__name__}: {error}", exc_info=error)
    return BrokerUnavailable(f"{what}: {error if str(error) else type(error).__name__}", hint=hint)


def hint_of(error: BaseException, *, encrypted: bool) -> str:
    """The hint for a connection that failed. ``encrypted``: whether it used TLS."""
    if isinstance(error, ConnectRefusedError) and error.reason_code in _LOGIN_CODES:
        return "Check MQTT_USERNAME, MQTT_PASSWORD or the client certificate, and that the broker knows this user."
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "Set MQTT_CA_CERT to the CA of the broker's certificate, and use a name of it in MQTT_BROKER_URL."
    if isinstance(cause, (ConnectionResetError, ssl.SSLError)):
        other = "without TLS: mqtt://" if encrypted else "with TLS: mqtts://"
        return f"Check MQTT_BROKER_URL, and that the broker runs. It may want a connection {other}."
    return "Check MQTT_BROKER_URL, and that the broker runs."


def lasting_subscription(broker: Broker) -> SubscribeOptions | int:
    """QoS 1. Over MQTT 5: without messages that were retained before, and later ones marked as retained."""
    if broker.protocol == "5":
        return SubscribeOptions(QoS.AT_LEAST_ONCE, retain_as_published=True, retain_handling=2)
    return 1


@lru_cache(maxsize=1024)
def properties(attempt: int | None, expires_in: float | None) -> Properties | None:
    """The properties of a message: its attempt, and the seconds after which it expires, rounded up."""
    values: dict[str, object] = {}
    if attempt is not None:
        values["user_property"] = ((_ATTEMPT, str(attempt)),)
    if expires_in is not None:
        values["message_expiry_interval"] = min(2**32 - 1, math.ceil(expires_in))
    return Properties(values) if values else None


def read_attempt(sent: Properties | None) -> int | None:
    """The attempt among the properties of a received message; None: there is none, or it is not a number."""
    if not sent:
        return None
    for name, value in sent.get("user_property", ()):
        if name == _ATTEMPT and value.isascii() and value.isdigit() and len(value) <= 5:
            return int(value)
    return None
