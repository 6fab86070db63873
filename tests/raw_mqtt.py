"""A publisher without any checks, for the bytes that a hostile device may send in an MQTT packet."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self


class Refused(Exception):
    """The broker ended the connection instead of acknowledging the message."""


class RawPublisher:
    """An MQTT 5 connection, open during the ``with`` block."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._number = 0

    def publish(self, topic: bytes, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the acknowledgement.

        Raises:
            Refused: the broker closed the connection because of it. The next call opens another.
        """
        self._number += 1
        body = struct.pack("!H", len(topic)) + topic + struct.pack("!H", self._number) + b"\x00" + payload
        try:
            self._send(0x32 | retain, body)
            while self._receive()[0] & 0xF0 != 0x40:
                pass
        except (OSError, EOFError) as error:
            self.close()
            self.open()
            raise Refused from error

    def open(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        name = b"raw"
        self._send(0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x00" + struct.pack("!H", len(name)) + name)
        kind, body = self._receive()
        assert (kind, body[1]) == (0x20, 0), "connected"

    def close(self) -> None:
        self._socket.close()

    def _send(self, kind: int, body: bytes) -> None:
        length, size = bytearray(), len(body)
        while True:
            size, digit = divmod(size, 128)
            length.append(digit | (0x80 if size else 0))
            if not size:
                break
        self._socket.sendall(bytes([kind]) + length + body)

    def _receive(self) -> tuple[int, bytes]:
        kind = self._exactly(1)[0]
        size = shift = 0
        while True:
            digit = self._exactly(1)[0]
            size |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return kind, self._exactly(size)

    def _exactly(self, number: int) -> bytes:
        data = b""
        while len(data) < number:
            more = self._socket.recv(number - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
