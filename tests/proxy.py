"""A proxy between MQTT clients and a real broker that simulates faults of networks and brokers.

    async with proxy(broker.url) as mqtt_proxy:
        mqtt_proxy.rules.append(publishing(lambda topic: "bad" in topic, Do.RESET))
        Session.connect(Broker.from_url(mqtt_proxy.url)) ...

Packets pass whole and in order. For each packet, the first rule that returns something decides. If none does, the
packet passes.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HOST = "127.0.0.1"
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14
ANSWERED_WITHIN = 2.0
"""Seconds to wait for the broker's answers to earlier packets, before the proxy ends a connection."""


class Do(enum.Enum):
    """What the proxy does with a packet."""

    PASS = enum.auto()
    DROP = enum.auto()
    HOLD = enum.auto()  # Until :meth:`Proxy.release`.
    CLOSE = enum.auto()  # FIN, after earlier packets have been answered.
    RESET = enum.auto()  # RST immediately: answers on their way are lost.
    DISCONNECT = enum.auto()  # The broker's DISCONNECT with the proxy's reason (MQTT 5), then FIN, as CLOSE.
    TRUNCATE = enum.auto()  # Its first half, then FIN.
    REFUSE = enum.auto()  # A CONNECT, SUBSCRIBE or PUBLISH (MQTT 5) is answered with the proxy's reason.


@dataclass(frozen=True, slots=True)
class Packet:
    """One MQTT packet. ``topics``: the topic of a PUBLISH, or the filters of a SUBSCRIBE."""

    kind: int
    to_broker: bool
    topics: tuple[str, ...]
    raw: bytes


Rule = Callable[[Packet], Do | None]


def publishing(matches: Callable[[str], bool], do: Do) -> Rule:
    """A rule for messages that clients publish to matching topics."""
    return lambda packet: do if packet.kind == PUBLISH and packet.to_broker and matches(packet.topics[0]) else None


def subscribing(matches: Callable[[str], bool], do: Do) -> Rule:
    """A rule for subscriptions with a matching filter."""
    return lambda packet: do if packet.kind == SUBSCRIBE and any(map(matches, packet.topics)) else None


def to_client(kind: int, do: Do) -> Rule:
    """A rule for the broker's packets of one kind, such as ``PUBACK``."""
    return lambda packet: do if packet.kind == kind and not packet.to_broker else None


@dataclass
class Proxy:
    """The proxy's settings. They may be changed at any time, also for open connections."""

    url: str
    rules: list[Rule] = field(default_factory=list)
    reason: int = 0x87
    """The MQTT reason code for refused packets and disconnected clients. 0x87 is "not authorized"."""
    delay: float = 0.0
    """The delay of each packet in each direction, in seconds."""
    refusing: bool = False
    """Whether new connections are reset at once, as if the broker were unavailable."""
    connections: int = 0
    """The number of connections so far."""
    published: list[str] = field(default_factory=list)
    """Topics of all messages that clients have published, including those that did not pass."""
    links: set[_Link] = field(default_factory=set)

    def decide(self, packet: Packet) -> Do:
        """Apply the rules to a packet."""
        return next((do for rule in self.rules if (do := rule(packet)) is not None), Do.PASS)

    def cut(self, do: Do = Do.RESET) -> None:
        """End all connections now, by ``CLOSE`` or ``RESET``."""
        for link in list(self.links):
            link.end(do)

    async def release(self) -> None:
        """Let held packets pass."""
        for link in list(self.links):
            await link.release()


@asynccontextmanager
async def proxy(broker_url: str, port: int = 0) -> AsyncIterator[Proxy]:
    """A proxy to ``broker_url``, on a free port. It does not support TLS."""
    target = urlsplit(broker_url)
    between = Proxy("")
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(_End(reader, writer)))
        serving.add(task)
        task.add_done_callback(serving.discard)

    async def serve(client: _End) -> None:
        if between.refusing:
            client.end(Do.RESET)
            return
        between.connections += 1
        try:
            broker = _End(*await asyncio.open_connection(target.hostname, target.port))
        except OSError:
            client.end(Do.RESET)
            return
        link = _Link(between, client, broker)
        between.links.add(link)
        try:
            await link.run()
        finally:
            between.links.discard(link)

    server = await asyncio.start_server(accept, HOST, port)
    between.url = f"mqtt://{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield between
    finally:
        server.close()
        between.cut(Do.RESET)
        await asyncio.gather(*serving)
        await server.wait_closed()


@dataclass(eq=False)
class _End:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        """Read the next packet.

        Raises:
            EOFError, OSError: the connection ended.
        """
        head = await self.reader.readexactly(2)
        while head[-1] & 0x80:
            head += await self.reader.readexactly(1)
        size = sum((digit & 0x7F) << (7 * place) for place, digit in enumerate(head[1:]))
        return head + await self.reader.readexactly(size)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def end(self, do: Do) -> None:
        if do is not Do.RESET:
            self.writer.close()
            return
        end = self.writer.get_extra_info("socket")
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class _Link:
    """One client's connection, and the proxy's connection to the broker for it."""

    def __init__(self, proxy: Proxy, client: _End, broker: _End) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._version = 5
        self._awaiting: set[int] = set()
        """Ids of packets that the broker has not answered yet."""
        self._answered = asyncio.Event()
        self._held: list[tuple[_End, bytes]] = []

    async def run(self) -> None:
        """Carry packets until one side ends."""
        ways = [
            asyncio.create_task(self._carry(self._client, self._broker)),
            asyncio.create_task(self._carry(self._broker, self._client)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self.end(Do.CLOSE)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    def end(self, do: Do) -> None:
        """End the client's connection in this way. The broker has received everything before."""
        self._client.end(do)
        self._broker.end(Do.CLOSE)

    async def release(self) -> None:
        held, self._held = self._held, []
        for end, raw in held:
            with suppress(OSError):  # The connection has already ended.
                await end.write(raw)

    async def _carry(self, source: _End, target: _End) -> None:
        with suppress(EOFError, OSError):
            while True:
                packet = self._parse(await source.read(), to_broker=target is self._broker)
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                if not await self._do(self._proxy.decide(packet), packet, target):
                    return

    async def _do(self, do: Do, packet: Packet, target: _End) -> bool:
        """Apply the decision to a packet. Returns False if the connection ends."""
        match do:
            case Do.PASS:
                await target.write(packet.raw)
                self._note(packet)
            case Do.HOLD:
                self._held.append((target, packet.raw))
            case Do.REFUSE:
                await self._client.write(self._refusal(packet))
            case Do.TRUNCATE:
                await target.write(packet.raw[: -(-len(packet.raw) // 2)])
                self.end(Do.CLOSE)
                return False
            case Do.CLOSE | Do.DISCONNECT:
                await self._previous_answered()
                if do is Do.DISCONNECT and self._version == 5:
                    await self._client.write(bytes([DISCONNECT << 4, 1, self._proxy.reason]))
                self.end(Do.CLOSE)
                return False
            case Do.RESET:
                self.end(Do.RESET)
                return False
        return True

    async def _previous_answered(self) -> None:
        """Wait until earlier packets are answered. Brokers process packets in order."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWERED_WITHIN):
                while self._awaiting:
                    self._answered.clear()
                    await self._answered.wait()

    def _note(self, packet: Packet) -> None:
        if packet.kind == PUBLISH and packet.to_broker and packet.raw[0] & 0x06:
            topic = _body(packet.raw)
            (length,) = struct.unpack_from("!H", topic)
            self._awaiting.add(struct.unpack_from("!H", topic, 2 + length)[0])
        elif packet.kind == PUBACK and not packet.to_broker:
            self._awaiting.discard(struct.unpack_from("!H", _body(packet.raw))[0])
            self._answered.set()

    def _parse(self, raw: bytes, *, to_broker: bool) -> Packet:
        kind, body = raw[0] >> 4, _body(raw)
        topics: tuple[str, ...] = ()
        if kind == CONNECT:
            self._version = body[6]
        elif kind == PUBLISH:
            topics = (_text(body, 0)[0],)
            if to_broker:
                self._proxy.published.append(topics[0])
        elif kind == SUBSCRIBE:
            topics = self._filters(body)
        return Packet(kind, to_broker, topics, raw)

    def _filters(self, body: bytes) -> tuple[str, ...]:
        place = 2 if self._version < 5 else 3 + body[2]  # Its properties are shorter than 128 bytes.
        found = []
        while place < len(body):
            topic_filter, place = _text(body, place)
            found.append(topic_filter)
            place += 1  # Its options.
        return tuple(found)

    def _refusal(self, packet: Packet) -> bytes:
        """The broker's answer to a packet that it refuses."""
        body, reason, mqtt_5 = _body(packet.raw), bytes([self._proxy.reason]), self._version == 5
        if packet.kind == CONNECT:
            kind, answer = CONNACK, b"\0" + reason + (b"\0" if mqtt_5 else b"")
        elif packet.kind == PUBLISH:
            end_of_topic = _text(body, 0)[1]
            kind, answer = PUBACK, body[end_of_topic : end_of_topic + 2] + reason + b"\0"
        else:
            codes = (reason if mqtt_5 else b"\x80") * len(packet.topics)
            kind, answer = SUBACK, body[:2] + (b"\0" if mqtt_5 else b"") + codes
        return bytes([kind << 4, len(answer)]) + answer


def _body(raw: bytes) -> bytes:
    place = 1
    while raw[place] & 0x80:
        place += 1
    return raw[place + 1 :]


def _text(body: bytes, place: int) -> tuple[str, int]:
    """Read an MQTT string at this position. Returns it and the position after it."""
    (length,) = struct.unpack_from("!H", body, place)
    end = place + 2 + length
    return body[place + 2 : end].decode(), end
