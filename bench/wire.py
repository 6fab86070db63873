"""MQTT 5 at its barest: frames made beforehand, acknowledgements counted. What no client library can beat by much."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

PUBLISH, PUBACK = 0x30, 0x40
WINDOW = 10_000
"""Frames sent and not yet acknowledged."""


def connect_frame(client_id: str) -> bytes:
    """CONNECT with a clean start."""
    return _frame(0x10, _text("MQTT") + b"\x05\x02" + (300).to_bytes(2) + b"\x00" + _text(client_id))


def subscribe_frame(topic_filter: str) -> bytes:
    """SUBSCRIBE at QoS 1."""
    return _frame(0x82, (1).to_bytes(2) + b"\x00" + _text(topic_filter) + b"\x01")


def publish_frame(number: int, topic: str, payload: bytes, *, attempt: int | None = None) -> bytes:
    """PUBLISH at QoS 1, with the attempt as the engine writes it."""
    properties = b"" if attempt is None else b"\x26" + _text("attempt") + _text(str(attempt))
    head = _text(topic) + packet_id(number) + bytes([len(properties)]) + properties
    return _frame(PUBLISH | 0x02, head + payload)


def puback_frame(identifier: bytes) -> bytes:
    """PUBACK, reason code 0."""
    return b"\x40\x02" + identifier


def packet_id(number: int) -> bytes:
    """The packet id of the n-th message, from 0."""
    return (number % 65_535 + 1).to_bytes(2)


class Frames:
    """Cuts what comes in into frames: (type and flags, body)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """Every frame that is complete now."""
        data = self._rest + data
        view, at, end = memoryview(data), 0, len(data)
        while at + 2 <= end:
            length, shift, body = 0, 0, at + 1
            while body < end:
                byte = data[body]
                length |= (byte & 0x7F) << shift
                shift, body = shift + 7, body + 1
                if byte < 0x80:
                    break
            else:
                break
            if body + length > end:
                break
            yield data[at], view[body : body + length]
            at = body + length
        self._rest = data[at:]


def topic_of(body: memoryview) -> tuple[str, bytes, memoryview]:
    """Topic, packet id and payload of a QoS 1 PUBLISH."""
    cut = 2 + int.from_bytes(body[:2])
    properties = cut + 2
    payload = properties + 1 + body[properties]  # properties shorter than 128 bytes, as ours are
    return str(body[2:cut], "ascii"), bytes(body[cut:properties]), body[payload:]


@contextmanager
def connected(port: int, client_id: str) -> Iterator[socket.socket]:
    """A socket on which the broker has accepted the session."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(connect_frame(client_id))
        answer = line.recv(4096)
        assert answer[:1] + answer[3:4] == b"\x20\x00", f"the broker refused: {answer!r}"
        yield line


def flood(line: socket.socket, frames: Sequence[bytes], *, per_second: float = 0.0) -> list[float]:
    """Send every frame, as fast as its acknowledgements allow or at a steady pace; wait for the last PUBACK.

    Returns the time of day at which each frame was handed to the socket.
    """
    handed: list[float] = []
    acknowledged = 0
    cutter = Frames()
    started = time.time()
    line.setblocking(False)
    backlog = memoryview(b"")
    while acknowledged < len(frames):
        if not backlog and len(handed) < len(frames):
            due = int((time.time() - started) * per_second) + 1 if per_second else len(frames)
            upto = min(due, acknowledged + WINDOW, len(handed) + 200, len(frames))
            chosen = frames[len(handed) : upto]
            backlog = memoryview(b"".join(chosen))
            handed += [time.time()] * len(chosen)
        readable, writable, _ = select.select([line], [line] if backlog else [], [], 0.002)
        if writable:
            backlog = backlog[line.send(backlog) :]
        if readable:
            data = line.recv(1 << 18)
            assert data, "the broker closed the connection"
            acknowledged += sum(kind & 0xF0 == PUBACK for kind, _ in cutter.feed(data))
    return handed


def _text(text: str) -> bytes:
    return len(text).to_bytes(2) + text.encode()


def _frame(kind: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, digit = divmod(left, 128)
        length.append(digit | 0x80 if left else digit)
        if not left:
            return bytes([kind]) + bytes(length) + body
