"""The MQTT library, made safe to build upon. The only module that knows it.

What its calls raise is turned into errors of our own, whatever the socket did, and a cancellation always comes out.
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

SESSION_EXPIRY = 7 * 86_400
"""Seconds for which the broker keeps a persistent session, and the reports queued in it."""

MAX_PACKET = 2 * 1024 * 1024
"""Bytes of one packet from the broker. On MQTT 5 the broker is told, and drops what is larger."""

READ_AHEAD = 2 * MAX_PACKET
"""Bytes that a session reads before they are taken from it (MQTT 5)."""

SUBSCRIBING = 300.0
"""Seconds that the broker may take to answer a subscription: what waits for this session may come first."""

CLOSING = 8.0
"""Seconds that closing a session may take. The library sends what is queued, which it limits to five."""

_CANCELLING, _CANCEL_AGAIN = 2.0, 0.05
"""Seconds that the library gets to end a cancelled call, and between two cancellations: it loses some."""

_OPENING = 10.0
"""Maximum number of seconds to open a connection that nobody waits for any more."""

_EXPECTED = (MQTTError, OSError, EOFError)
"""What the library raises when the connection, or what is asked of the broker, fails. Anything else is a bug."""

_NO_LOGIN = frozenset({4, 5, 134, 135})
"""Why a broker refuses a login: bad user name or password, not authorized; of MQTT 3.1.1 and of MQTT 5."""

_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_ATTEMPT = "attempt"

_log = get_logger("mqtt")

T = TypeVar("T")


class Client(AsyncClient):
    """The library's client with our limits. Its calls that may lose a cancellation are made through :meth:`call`."""

    @classmethod
    def to(cls, broker: Broker, client_id: str, *, persistent: bool, manual_ack: bool, buffer: int) -> Self:
        """A client that is not connected yet."""
        limited = broker.protocol == "5"
        expiry = Properties({"session_expiry_interval": SESSION_EXPIRY}) if persistent and limited else None
        client = cls(
            client_id or f"rollwave-{os.getpid()}-{os.urandom(4).hex()}",
            protocol=_PROTOCOLS[broker.protocol],
            clean_start=not persistent,
            keepalive=broker.keepalive,
            ping_timeout=broker.keepalive / 2,
            username=broker.username,
            password=broker.password,
            connect_properties=expiry,
            # The broker is told no Receive Maximum worth speaking of: Mosquitto 2.0.11 overruns it, which
            # would cost the connection. ``buffer`` is the bound: past it TCP pushes back.
            max_inbound_inflight=65_535,
            # A packet over the limit costs the connection, again and again. On MQTT 3.1.1 the broker cannot be
            # told of one, so there is none: the broker's own limit on a message is what counts.
            maximum_packet_size=MAX_PACKET if limited else None,
            max_iterator_bytes=READ_AHEAD if limited else None,
            subscribe_timeout=SUBSCRIBING,
            max_unacknowledged_messages=10_000,
            max_write_queue_bytes=4 * 1024 * 1024,
            manual_ack=manual_ack,
            max_iterator_messages=buffer,
        )
        client._transport_factory = _open_socket
        return client

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a call in which the library may lose a cancellation.

        It loses some while it connects and disconnects and, on Python 3.11, as an answer arrives
        (``asyncio.wait_for``). Waiting for messages, receipts and room to publish loses none.
        """
        return await immune(work, within=_CANCELLING, cancel_again=_CANCEL_AGAIN)

    def abort(self) -> None:
        """Close the socket; what is queued is not sent. The library's own tasks then end by themselves."""
        _abort(self._transport)

    async def close(self) -> None:
        """Disconnect in order, for ``CLOSING`` seconds at most, and abort what is left. Raises no error of the socket.

        Raises:
            asyncio.CancelledError: the caller was cancelled. The connection is closed nevertheless.
        """
        closing = asyncio.create_task(self.disconnect())
        try:
            await asyncio.wait({closing}, timeout=CLOSING)
        finally:
            try:
                await end(closing, within=_CANCELLING, cancel_again=_CANCEL_AGAIN)
            finally:
                self.abort()
                if closing.done() and not closing.cancelled():
                    closing.exception()  # the session is over either way


async def _open_socket(host: str, port: int, *, ssl: Any = None) -> Any:
    """Open the connection, nothing sent yet. Once cancelled, let it end by itself and close it.

    asyncio loses the socket of a connection whose making is cancelled at the moment when it succeeds
    (``asyncio.staggered_race``).
    """
    connect = TcpTransport.connect if _knows_happy_eyeballs(asyncio.get_running_loop()) else _connect_plainly
    opening = asyncio.create_task(asyncio.wait_for(connect(host, port, ssl=ssl), _OPENING))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unused)
        raise


async def _connect_plainly(host: str, port: int, *, ssl: Any = None) -> TcpTransport:
    """As the library does for event loops other than asyncio's own, without the argument that they do not know."""
    return TcpTransport(*await asyncio.open_connection(host, port, ssl=ssl))


def _knows_happy_eyeballs(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether ``loop`` takes the argument with which the library connects; uvloop's does not."""
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
    """Our error for one of the library's, to be raised from it. A bug is logged with its traceback."""
    if not isinstance(error, _EXPECTED):
        _log.error("mqtt_library_error", error=f"{type(error).__name__}: {error}", exc_info=error)
    return BrokerUnavailable(f"{what}: {error if str(error) else type(error).__name__}", hint=hint)


def hint_of(error: BaseException, *, encrypted: bool) -> str:
    """What to do about a connection that cannot be made. ``encrypted``: it was tried with TLS."""
    if isinstance(error, ConnectRefusedError) and error.reason_code in _NO_LOGIN:
        return "Check MQTT_USERNAME, MQTT_PASSWORD or the client certificate, and that the broker knows this user."
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "Set MQTT_CA_CERT to the CA of the broker's certificate, and use a name of it in MQTT_BROKER_URL."
    if isinstance(cause, (ConnectionResetError, ssl.SSLError)):
        other = "without TLS: mqtt://" if encrypted else "with TLS: mqtts://"
        return f"Check MQTT_BROKER_URL, and that the broker runs. It may want a connection {other}."
    return "Check MQTT_BROKER_URL, and that the broker runs."


def lasting_subscription(broker: Broker) -> SubscribeOptions | int:
    """QoS 1; on MQTT 5 retained messages of before do not come, and later ones say that they are."""
    if broker.protocol == "5":
        return SubscribeOptions(QoS.AT_LEAST_ONCE, retain_as_published=True, retain_handling=2)
    return 1


@lru_cache(maxsize=1024)
def properties(attempt: int | None, expires_in: float | None) -> Properties | None:
    """What travels beside a message: its attempt, and the seconds after which it is of no more use."""
    values: dict[str, object] = {}
    if attempt is not None:
        values["user_property"] = ((_ATTEMPT, str(attempt)),)
    if expires_in is not None:
        values["message_expiry_interval"] = min(2**32 - 1, math.ceil(expires_in))
    return Properties(values) if values else None


def read_attempt(sent: Properties | None) -> int | None:
    """The attempt that travelled beside a message."""
    if not sent:
        return None
    for name, value in sent.get("user_property", ()):
        if name == _ATTEMPT and value.isascii() and value.isdigit() and len(value) <= 5:
            return int(value)
    return None
