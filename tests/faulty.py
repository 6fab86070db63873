"""Real sockets to a real server that fail on request, if they are opened inside ``failing``."""

from __future__ import annotations

import contextvars
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass
class Fault:
    """Raise ``error`` at the ``read`` or ``write`` with this number, counted from 1 over all affected sockets."""

    error: Exception
    way: str
    number: int
    raised: bool = False
    _seen: int = 0

    def at(self, way: str) -> None:
        if way == self.way:
            self._seen += 1
            if self._seen == self.number:
                self.raised = True
                raise self.error


_fault: contextvars.ContextVar[Fault | None] = contextvars.ContextVar("fault", default=None)


class _Socket(socket.socket):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._fault = _fault.get()

    def recv_into(self, *arguments: Any) -> int:
        number = super().recv_into(*arguments)
        if self._fault:
            self._fault.at("read")
        return number

    def recv(self, *arguments: Any) -> bytes:
        data = super().recv(*arguments)
        if self._fault:
            self._fault.at("read")
        return data

    def send(self, *arguments: Any) -> int:
        if self._fault:
            self._fault.at("write")
        return super().send(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        if self._fault:
            self._fault.at("write")
        return super().sendmsg(*arguments)


@pytest.fixture
def faulty_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make :func:`failing` work for sockets that are opened from now on."""
    monkeypatch.setattr(socket, "socket", _Socket)


@contextmanager
def failing(fault: Fault) -> Iterator[Fault]:
    """``fault`` affects sockets that are opened in the block, and in tasks started there."""
    token = _fault.set(fault)
    try:
        yield fault
    finally:
        _fault.reset(token)
