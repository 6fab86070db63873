"""One session with a broker.

A session never reconnects by itself: when it is lost, ``messages()`` ends and ``publish()`` raises, and
whoever holds it opens another. So nothing is ever sent twice behind the engine's back, and a broker
that forgot the session is subscribed to again.

Whatever happens to the connection is a ``BrokerUnavailable``. A ``TimeoutError`` is always the caller's own, and a
cancellation of the caller always comes out.
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
        """Bytes that the sender decides on, at most: a character of the topic takes up to four."""
        return len(self.topic) * (1 if self.topic.isascii() else 4) + len(self.payload)


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
        except Exception as error:
            raise unavailable("publish not acknowledged", error) from error

    async def settled(self) -> None:
        """Return once the broker has answered, or the session was lost; :attr:`taken` tells which."""
        try:
            await self._receipt.wait()
        except Exception:  # noqa: BLE001  whatever ended the session
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

    def __init__(self, client: Client, broker: Broker, *, session_present: bool) -> None:
        self._client = client
        self._has_properties = broker.protocol == "5"
        self._options = lasting_subscription(broker)
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
            BrokerUnavailable: no connection, or the broker refused it. Leaving the block raises nothing.
        """
        client = Client.to(broker, client_id, persistent=persistent, manual_ack=manual_ack, buffer=buffer)
        try:
            answer = await client.call(client.connect(broker.host, broker.port, ssl=broker.tls, timeout=timeout))
        except Exception as error:
            client.abort()
            hint = hint_of(error, encrypted=broker.tls is not None)
            raise unavailable(f"no MQTT session with {broker.address}", error, hint=hint) from error
        except asyncio.CancelledError:
            client.abort()  # also where the connection had just been made
            raise
        try:
            yield cls(client, broker, session_present=answer.session_present)
        finally:
            await client.close()

    @property
    def connected(self) -> bool:
        """Whether the connection still stands, as far as this side knows."""
        return self._client.is_connected

    def abort(self) -> None:
        """Close the connection at once: nothing that still waits to be sent goes out."""
        self._client.abort()

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
        """Hand one QoS 1 message to the session; waits while its queues are full.

        ``attempt`` travels as an MQTT 5 user property; after ``expires_in`` seconds the broker drops the message if
        it still waits for the device. (MQTT 3.1.1 knows neither, and they are left out.)

        Raises:
            MessageTooLarge: the broker has said that it takes no packet of this size (MQTT 5). The session stands.
            BrokerUnavailable: the session is lost, or the broker's limits forbid the message.
        """
        beside = properties(attempt, expires_in) if self._has_properties else None
        try:
            try:  # a quarter cheaper than to be ready to wait
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
        """Every message, until the session ends, however it ends."""
        try:
            async for message in self._client.messages():
                attempt = read_attempt(message.properties)
                yield Incoming(message.topic, message.payload, message.retain, attempt, message)
        except Exception as error:  # noqa: BLE001  that it has ended is all that there is to know
            unavailable("receiving failed", error)

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
        except Exception as error:
            raise unavailable("acknowledging failed", error) from error
