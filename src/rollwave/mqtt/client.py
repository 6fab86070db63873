"""One session with a broker. The only module that knows the MQTT library.

A session never reconnects by itself: when it is lost, ``messages()`` ends and ``publish()`` raises, and
whoever holds it opens another. So nothing is ever sent twice behind the engine's back, and a broker
that forgot the session is subscribed to again.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from mqttium import FlowControlError, MQTTError, MQTTProtocolVersion, PublishRejectedError, QoS
from mqttium.api import AsyncClient, Message, Properties, PublishReceipt, SubscribeOptions

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker

SESSION_EXPIRY = 7 * 86_400
"""Seconds for which the broker keeps a persistent session, and the reports queued in it."""

MAX_PACKET = 2 * 1024 * 1024
"""Bytes of one packet from the broker. On MQTT 5 the broker is told, and drops what is larger."""

READ_AHEAD = 2 * MAX_PACKET
"""Bytes that a session reads before they are taken from it (MQTT 5)."""

SUBSCRIBING = 300.0
"""Seconds that the broker may take to answer a subscription: what waits for this session may come first."""

_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_ATTEMPT = "attempt"
_TAKEN_OVER = 0x8E


@dataclass(slots=True)  # not frozen: one is made for each message, and that would take three times as long
class Incoming:
    """A message as it came. ``attempt`` is the sender's user property of that name, if there was one."""

    topic: str
    payload: bytes
    retain: bool
    attempt: int | None
    handle: Message = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes that the sender decides on."""
        return len(self.topic) + len(self.payload)


class Receipt:
    """The broker's answer to one publish, to be waited for."""

    def __init__(self, receipt: PublishReceipt) -> None:
        self._receipt = receipt

    async def acknowledged(self) -> None:
        """Return once the broker has acknowledged the message.

        Raises:
            BrokerUnavailable: it refused, or the session was lost first (the message may or may not have arrived).
        """
        try:
            await self._receipt.wait()
        except MQTTError as error:
            raise BrokerUnavailable(f"publish not acknowledged: {error}") from error

    async def settled(self) -> None:
        """Return once the broker has answered, or the session was lost; :attr:`taken` tells which."""
        try:
            await self._receipt.wait()
        except MQTTError:
            return

    @property
    def answered(self) -> bool:
        """Whether the broker has answered, or the session was lost."""
        return self._receipt.is_done()

    @property
    def taken(self) -> bool:
        """Whether the broker took the message. False: it refused, or has not answered (it may have the message)."""
        return self._receipt.is_done() and self._receipt.exception() is None

    @property
    def refused(self) -> bool:
        """Whether the broker answered that it will not take this message, while it takes others."""
        return self._receipt.is_done() and isinstance(self._receipt.exception(), PublishRejectedError)


class Session:
    """One connection. Open it with :meth:`connect`."""

    def __init__(self, client: AsyncClient, broker: Broker, *, session_present: bool) -> None:
        self._client = client
        self._has_properties = broker.protocol == "5"
        self._options: SubscribeOptions | int = 1
        if self._has_properties:
            self._options = SubscribeOptions(QoS.AT_LEAST_ONCE, retain_as_published=True, retain_handling=2)
        self.session_present = session_present
        """Whether the broker remembers this client id: its queue is intact."""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        broker: Broker,
        client_id: str = "",
        *,
        persistent: bool = False,
        manual_ack: bool = False,
        buffer: int = 5000,
        timeout: float = 10.0,
    ) -> AsyncIterator[Session]:
        """Open a session for the block; it is closed with DISCONNECT on the way out.

        Args:
            persistent: the broker keeps subscriptions and queue under ``client_id`` while we are away.
            manual_ack: what is received counts as unreceived until :meth:`acknowledge`.
            buffer: messages received and not yet taken from :meth:`messages`; past it, or past ``READ_AHEAD``
                bytes of them, the socket is left unread.
            timeout: seconds for connecting.

        Raises:
            BrokerUnavailable: no connection, or the broker refused it.
        """
        limited = broker.protocol == "5"
        client = AsyncClient(
            client_id or f"rollwave-{os.getpid()}-{os.urandom(4).hex()}",
            protocol=_PROTOCOLS[broker.protocol],
            clean_start=not persistent,
            keepalive=broker.keepalive,
            ping_timeout=broker.keepalive / 2,
            username=broker.username,
            password=broker.password,
            connect_properties=_connect_properties(broker, persistent=persistent),
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
        try:
            answer = await client.connect(broker.host, broker.port, ssl=broker.tls, timeout=timeout)
        except (MQTTError, OSError) as error:
            raise BrokerUnavailable(
                f"no MQTT session with {broker.address}: {error}",
                hint="Check MQTT_BROKER_URL, the credentials, and that the broker runs.",
            ) from error
        try:
            yield cls(client, broker, session_present=answer.session_present)
        finally:
            await client.disconnect()

    @property
    def connected(self) -> bool:
        """Whether the connection still stands, as far as this side knows."""
        return self._client.is_connected

    @property
    def taken_over(self) -> bool:
        """Whether the broker said that it ended the session because another client came with the same client id.

        MQTT 3.1.1 has no such word, and not every broker of MQTT 5 says it.
        """
        return self._client.stats().last_disconnect_reason_code == _TAKEN_OVER

    async def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1; on MQTT 5, retained messages of before do not come, and those of later say that they are.

        Raises:
            BrokerUnavailable: the broker refused a filter, or the session is lost.
        """
        await self._subscribe(filters, self._options)

    async def subscribe_to_state(self, *filters: str) -> None:
        """Subscribe at QoS 0 to what is retained there, and to what replaces it.

        Raises:
            BrokerUnavailable: the broker refused a filter, or the session is lost.
        """
        await self._subscribe(filters, 0)

    async def _subscribe(self, filters: Sequence[str], options: SubscribeOptions | int) -> None:
        try:
            await self._client.subscribe([(each, options) for each in filters])
        except MQTTError as error:
            raise BrokerUnavailable(
                f"subscribing to {', '.join(filters)} failed: {error}",
                hint="Check the broker's ACL for this user.",
            ) from error

    async def unsubscribe(self, *filters: str) -> None:
        """End subscriptions that the broker may have kept for this client id.

        Raises:
            BrokerUnavailable: the session is lost.
        """
        try:
            await self._client.unsubscribe(filters)
        except MQTTError as error:
            raise BrokerUnavailable(f"unsubscribing from {', '.join(filters)} failed: {error}") from error

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        attempt: int | None = None,
        expires_in: float | None = None,
        retain: bool = False,
    ) -> Receipt:
        """Hand one QoS 1 message to the session; waits while its queues are full.

        ``attempt`` travels as an MQTT 5 user property; after ``expires_in`` seconds the broker drops the message if
        it still waits for the device. (MQTT 3.1.1 knows neither, and they are left out.)

        Raises:
            BrokerUnavailable: the session is lost, or the broker's limits forbid the message.
        """
        properties = _properties(attempt, expires_in) if self._has_properties else None
        try:
            try:  # a quarter cheaper than to be ready to wait
                receipt = self._client.publish_nowait(topic, payload, qos=1, retain=retain, properties=properties)
            except FlowControlError:
                receipt = await self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
            return Receipt(receipt)
        except MQTTError as error:
            raise BrokerUnavailable(f"publish failed: {error}") from error

    async def messages(self) -> AsyncIterator[Incoming]:
        """Every message, until the session ends, however it ends."""
        try:
            async for message in self._client.messages():
                attempt = _read_attempt(message.properties)
                yield Incoming(message.topic, message.payload, message.retain, attempt, message)
        except MQTTError:
            return

    async def acknowledge(self, incoming: Incoming) -> None:
        """Tell the broker that ``incoming`` is dealt with (``manual_ack`` sessions, in the order received).

        Raises:
            BrokerUnavailable: the session is lost; the broker will deliver the message again.
        """
        await self.acknowledge_all([incoming])

    async def acknowledge_all(self, messages: Iterable[Incoming]) -> None:
        """Acknowledge several, in the order received.

        Raises:
            BrokerUnavailable: the session is lost; the broker will deliver what is not acknowledged again.
        """
        acknowledge = self._client.ack
        try:
            for incoming in messages:
                await acknowledge(incoming.handle)
        except MQTTError as error:
            raise BrokerUnavailable(f"acknowledging failed: {error}") from error


def _connect_properties(broker: Broker, *, persistent: bool) -> Properties | None:
    if persistent and broker.protocol == "5":
        return Properties({"session_expiry_interval": SESSION_EXPIRY})
    return None


@lru_cache(maxsize=1024)
def _properties(attempt: int | None, expires_in: float | None) -> Properties | None:
    values: dict[str, object] = {}
    if attempt is not None:
        values["user_property"] = ((_ATTEMPT, str(attempt)),)
    if expires_in is not None:
        values["message_expiry_interval"] = min(2**32 - 1, math.ceil(expires_in))
    return Properties(values) if values else None


def _read_attempt(properties: Properties | None) -> int | None:
    if not properties:
        return None
    for name, value in properties.get("user_property", ()):
        if name == _ATTEMPT and value.isascii() and value.isdigit() and len(value) <= 5:
            return int(value)
    return None
