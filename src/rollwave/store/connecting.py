"""One connection of our own: to whichever host answers, and given up when the other side has vanished."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

VANISHED_AFTER_SECONDS = 5.0
"""Seconds without a sign of life from the other side's network, after which a connection is given up."""

_SOCKET_OPTIONS = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, 2),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, 1),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, int(VANISHED_AFTER_SECONDS * 1000)),
}

SERVER_SETTINGS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""PostgreSQL's side of it, so that what a vanished worker held is free again. A pooler does not know these."""


class KeepaliveConnection(_Connection):
    """A connection that notices when the other side has vanished; the system's own timeout is some minutes."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        own = transport.get_extra_info("socket")
        if own.family in {socket.AF_INET, socket.AF_INET6}:
            for name, (level, value) in _SOCKET_OPTIONS.items():
                if option := getattr(socket, name, None):  # not every system has them all
                    own.setsockopt(level, option, value)


class Hosts:
    """Connects to the hosts of a URL. A silent one is asked last from then on: asyncpg has one timeout for them all."""

    def __init__(self, timeout: float) -> None:
        """Args:
        timeout: seconds to connect.
        """
        self._timeout = timeout
        self._turn = 0

    async def connect(self, dsn: str | None = None, **how: Any) -> asyncpg.Connection[asyncpg.Record]:
        """As ``asyncpg.connect`` does.

        Raises:
            TimeoutError: not even after a try for each host.
        """
        url = urlsplit(dsn or "")
        login, at, hosts = url.netloc.rpartition("@")
        names = hosts.split(",")
        for _ in names:
            first = self._turn % len(names)
            order = ",".join(names[first:] + names[:first])
            try:
                return await asyncpg.connect(
                    url._replace(netloc=f"{login}{at}{order}").geturl(), timeout=self._timeout, **how
                )
            except TimeoutError:
                self._turn += 1
        raise TimeoutError("no host of the database answers")
