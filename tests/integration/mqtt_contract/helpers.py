"""Publishing and receiving with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from rollwave.mqtt.client import Incoming, Receipt, Session
from tests.proxy import Packet

LAST = b"last"
"""The payload of a message that a test publishes after all others. After it, no other message arrives."""

WITHIN_SECONDS = 15.0


async def publish(session: Session, topic: str, payloads: Sequence[bytes]) -> None:
    """Publish each payload. Returns when the broker has acknowledged all."""
    for receipt in [await session.publish(topic, payload) for payload in payloads]:
        await receipt.acknowledged()


async def wait_until_read(session: Session, topic: str) -> None:
    """Wait until the broker has read everything that the session has sent, such as acknowledgements.

    Closing a session does not wait for that. The next session of the same client id may begin before.
    """
    await publish(session, f"{topic}/nobody-subscribes-to-this", [b""])


async def received(messages: AsyncIterator[Incoming], number: int) -> list[Incoming]:
    """The next messages.

    Raises:
        StopAsyncIteration: the session has ended.
        TimeoutError: the messages do not arrive in time.
    """
    async with asyncio.timeout(WITHIN_SECONDS):
        return [await anext(messages) for _ in range(number)]


async def received_until_last(messages: AsyncIterator[Incoming]) -> list[Incoming]:
    """All messages that arrive before :data:`LAST`."""
    before = []
    while (message := (await received(messages, 1))[0]).payload != LAST:
        before.append(message)
    return before


async def ended(session: Session) -> list[Incoming]:
    """Wait for the end of the session. Returns the messages received before it."""
    async with asyncio.timeout(WITHIN_SECONDS):
        return [message async for message in session.messages()]


async def settled(receipt: Receipt) -> Receipt:
    """Wait until the broker has answered or the session has ended. Returns the receipt."""
    async with asyncio.timeout(WITHIN_SECONDS):
        await receipt.wait()
    return receipt


def body_of(packet: Packet) -> bytes:
    """The bytes after the fixed header of a packet."""
    place = 1
    while packet.raw[place] & 0x80:
        place += 1
    return packet.raw[place + 1 :]


def packet_id(packet: Packet) -> int:
    """The packet id, which a PUBLISH at QoS 1 and its PUBACK share."""
    body = body_of(packet)
    place = 2 + int.from_bytes(body[:2]) if packet.topics else 0
    return int.from_bytes(body[place : place + 2])
