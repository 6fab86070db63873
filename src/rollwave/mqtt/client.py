"""A session with an MQTT broker, for the engine, the device agent and the fleet.

A session never reconnects by itself. When it is lost, ``messages()`` ends and ``publish()`` raises, and the caller
opens another one. So no message is sent twice without the caller's knowledge, and the caller notices that a broker has
forgotten the session, and subscribes again.

Every failure of the connection is a ``BrokerUnavailable``. A ``TimeoutError`` always comes from the caller's own
timeout, and a cancelled call always raises ``CancelledError``.

``tests/integration/mqtt_contract`` tests all of this on two brokers, and another adapter can be run through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rollwave.errors import MessageTooLarge
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.library import (
    Client,
    FlowControlError,
    Message,
    PacketTooLargeError,
    PublishReceipt,
    PublishRejectedError,
    SubscribeOptions,
    hint_of,
    lasting_subscription,
    properties,
    read_attempt,
    unavailable,
)

_TAKEN_OVER = 0x8E
"""MQTT 5 reason code "session taken over"."""


@dataclass(slots=True)  # not frozen: one is made for each message, and that would take three times as long
class Incoming:
    """A received message."""

    topic: str
    payload: bytes
    retain: bool
    """The broker says that the message was retained."""
    attempt: int | None
    """The sender's user property ``attempt`` (MQTT 5); None: it has none, or not a number."""
    handle: Message = field(repr=False)
    """The library's message, by which it is acknowledged."""

    @property
    def size(self) -> int:
        """Maximum number of bytes of topic and payload: a character of the topic may take four."""
        return len(self.topic) * (1 if self.topic.isascii() else 4) + len(self.payload)


class Receipt:
    """The broker's answer to one published message."""

    def __init__(self, receipt: PublishReceipt) -> None:
        self._receipt = receipt

    async def acknowledged(self) -> None:
        """Wait until the broker has acknowledged the message.

        Raises:
            BrokerUnavailable: the broker refused the message, or the session was lost first (the message may have
                arrived).
        """
        try:
            await self._receipt.wait()
        except Exception as error:
            raise unavailable("publish not acknowledged", error) from error

    async def wait(self) -> None:
        """Wait until the broker has answered or the session is lost. :attr:`taken` and :attr:`refused` say which."""
        try:
            await self._receipt.wait()
        except Exception:  # noqa: BLE001  any error means that the session is lost
            return

    @property
    def answered(self) -> bool:
        """The broker has answered, or the session is lost."""
        return self._receipt.is_done()

    @property
    def taken(self) -> bool:
        """The broker acknowledged the message. False: it refused it, or has not answered (it may have the message)."""
        return self._receipt.is_done() and self._receipt.exception() is None

    @property
    def refused(self) -> bool:
        """The broker refused this message with a reason code (MQTT 5). The session continues."""
        return self._receipt.is_done() and isinstance(self._receipt.exception(), PublishRejectedError)


class Session:
    """One connection to the broker. Open it with :meth:`connect`."""

    def __init__(self, client: Client, broker: Broker, *, session_present: bool) -> None:
        self._client = client
        self._has_properties = broker.protocol == "5"
        self._options = lasting_subscription(broker)
        self.session_present = session_present
        """The broker remembered this client id: its subscriptions and queue are intact."""

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
        """Open a session for the block. Leaving the block closes it with DISCONNECT, and raises nothing.

        Args:
            broker: its address, login and TLS settings.
            client_id: if empty, a random one is used.
            persistent: the broker keeps the subscriptions and the queue of ``client_id`` after the session has ended.
            manual_ack: a message is delivered again to the next session, unless it was passed to :meth:`acknowledge`.
            buffer: maximum number of messages that are read ahead of :meth:`messages`. At this number, or at
                ``READ_AHEAD_BYTES`` (MQTT 5), nothing more is read from the socket.
            timeout: seconds for connecting.

        Raises:
            BrokerUnavailable: the connection failed, or the broker refused it. The error has a hint.
        """
        client = Client.to(broker, client_id, persistent=persistent, manual_ack=manual_ack, buffer=buffer)
        try:
            answer = await client.call(client.connect(broker.host, broker.port, ssl=broker.tls, timeout=timeout))
        except Exception as error:
            client.abort()
            hint = hint_of(error, encrypted=broker.tls is not None)
            raise unavailable(f"no MQTT session with {broker.address}", error, hint=hint) from error
        except asyncio.CancelledError:
            client.abort()  # also if the connection was just opened
            raise
        try:
            yield cls(client, broker, session_present=answer.session_present)
        finally:
            await client.close()

    @property
    def connected(self) -> bool:
        """The connection is open, as far as this side knows."""
        return self._client.is_connected

    def abort(self) -> None:
        """Close the connection immediately. Queued messages are not sent."""
        self._client.abort()

    @property
    def taken_over(self) -> bool:
        """The broker said that it ended the session because another client connected with the same client id.

        It cannot say so over MQTT 3.1.1, and not every broker of MQTT 5 does.
        """
        return self._client.stats().last_disconnect_reason_code == _TAKEN_OVER

    async def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1.

        Over MQTT 5 the broker is asked not to deliver messages that were retained before, and to mark later ones.

        Raises:
            BrokerUnavailable: the broker refused a filter, or the session is lost.
        """
        await self._subscribe(filters, self._options)

    async def subscribe_to_state(self, *filters: str) -> None:
        """Subscribe at QoS 0, to what is retained and to what replaces it.

        Raises:
            BrokerUnavailable: the broker refused a filter, or the session is lost.
        """
        await self._subscribe(filters, 0)

    async def _subscribe(self, filters: Sequence[str], options: SubscribeOptions | int) -> None:
        try:
            await self._client.call(self._client.subscribe([(each, options) for each in filters]))
        except Exception as error:
            hint = "Check the broker's ACL for this user."
            raise unavailable(f"subscribing to {', '.join(filters)} failed", error, hint=hint) from error

    async def unsubscribe(self, *filters: str) -> None:
        """End subscriptions that the broker may have kept for this client id.

        Raises:
            BrokerUnavailable: the session is lost.
        """
        try:
            await self._client.call(self._client.unsubscribe(filters))
        except Exception as error:
            raise unavailable(f"unsubscribing from {', '.join(filters)} failed", error) from error

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        attempt: int | None = None,
        expires_in: float | None = None,
        retain: bool = False,
    ) -> Receipt:
        """Put one QoS 1 message into the session's queue. Waits while the queue is full.

        Args:
            topic: without wildcards.
            payload: the bytes of the message.
            attempt: sent as a user property (MQTT 5; otherwise left out).
            expires_in: seconds after which the broker drops the message, if it still waits for the subscriber (MQTT 5;
                otherwise left out). Rounded up to whole seconds.
            retain: the broker keeps the message for later subscribers.

        Raises:
            MessageTooLarge: the packet is over the limit that the broker has announced (MQTT 5). The session stands.
            BrokerUnavailable: the session is lost, or the message breaks a rule of the session.
        """
        beside = properties(attempt, expires_in) if self._has_properties else None
        try:
            try:  # costs a quarter less than the call that can wait
                receipt = self._client.publish_nowait(topic, payload, qos=1, retain=retain, properties=beside)
            except FlowControlError:
                receipt = await self._client.publish(topic, payload, qos=1, retain=retain, properties=beside)
            return Receipt(receipt)
        except PacketTooLargeError as error:
            limit = self._client.negotiated.maximum_packet_size
            raise MessageTooLarge(
                f"the broker takes packets of at most {limit} bytes, and the message alone has {len(payload)}"
            ) from error
        except Exception as error:
            raise unavailable("publish failed", error) from error

    async def messages(self) -> AsyncIterator[Incoming]:
        """Yield every message until the session ends. The end of the session is no error."""
        try:
            async for message in self._client.messages():
                attempt = read_attempt(message.properties)
                yield Incoming(message.topic, message.payload, message.retain, attempt, message)
        except Exception as error:  # noqa: BLE001  the session has ended, for whatever reason
            unavailable("receiving failed", error)

    async def acknowledge(self, incoming: Incoming) -> None:
        """Acknowledge a message to the broker (``manual_ack`` sessions, in the order received).

        Raises:
            BrokerUnavailable: the session is lost. The broker will deliver the message again.
        """
        await self.acknowledge_all([incoming])

    async def acknowledge_all(self, messages: Iterable[Incoming]) -> None:
        """Acknowledge several messages to the broker, in the order received.

        Raises:
            BrokerUnavailable: the session is lost. The broker will deliver again what it has no acknowledgement of.
        """
        acknowledge = self._client.ack
        try:
            for incoming in messages:
                await acknowledge(incoming.handle)
        except Exception as error:
            raise unavailable("acknowledging failed", error) from error
