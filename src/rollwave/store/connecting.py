"""Opens a connection to the first server that answers, notices when the server vanishes, and explains failures."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from rollwave.errors import DatabaseUnavailable
from rollwave.store.url import DIRECT

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

VANISHED_AFTER_SECONDS = 5.0
"""Seconds without any answer from the other machine after which a connection is closed."""

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
"""The same for PostgreSQL, so that it releases a vanished worker's locks. A pooler does not know these settings."""


class KeepaliveConnection(_Connection):
    """A connection that notices when the other machine has vanished. The operating system's timeout is some minutes."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        own = transport.get_extra_info("socket")
        if own.family in {socket.AF_INET, socket.AF_INET6}:
            for name, (level, value) in _SOCKET_OPTIONS.items():
                if option := getattr(socket, name, None):  # some systems lack some of these
                    own.setsockopt(level, option, value)


class Hosts:
    """Connects to the hosts of a URL. A host that did not answer is tried last: asyncpg has one timeout for all."""

    def __init__(self, timeout: float) -> None:
        """Args:
        timeout: seconds to connect.
        """
        self._timeout = timeout
        self._turn = 0

    async def connect(self, dsn: str | None = None, **how: Any) -> asyncpg.Connection[asyncpg.Record]:
        """Connect as ``asyncpg.connect`` does.

        Raises:
            TimeoutError: no host has answered after one try for each.
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


def unavailable(error: BaseException) -> DatabaseUnavailable:
    """The error for a failed connection, with a hint. It does not contain the URL, which may contain a password."""
    if isinstance(error, asyncpg.ClientConfigurationError) and "root certificate" in str(error):
        return DatabaseUnavailable(
            "the database URL wants the server's certificate verified, and names no CA",
            hint="Add sslrootcert=FILE to the URL, with the PEM file of the CA.",
        )
    if isinstance(error, ValueError):  # asyncpg's message quotes the invalid part, which may be the password
        hint = "Write it like postgresql://user@host:5432/name, special characters of a password as %XX."
        return DatabaseUnavailable("DATABASE_URL cannot be read", hint=hint)
    return DatabaseUnavailable(
        f"PostgreSQL cannot be reached: {str(error) or type(error).__name__}", hint=_hint(error, str(error))
    )


def _hint(error: BaseException, text: str) -> str:
    if "startup parameter" in text:  # PgBouncer knows few parameters
        if any(name in text for name in SERVER_SETTINGS):
            return DIRECT
        return "Remove this parameter from the database URL, or add it to ignore_startup_parameters of PgBouncer."
    if isinstance(error, _ABOUT_A_PARAMETER):
        instead = next((words for name, words in _INSTEAD.items() if f'"{name}"' in text), "")
        return instead or "Correct this parameter in the database URL, or remove it."
    if isinstance(error, ssl.SSLError):
        return "Check sslmode, sslrootcert, sslcert and sslkey in the database URL."
    return "Check DATABASE_URL, and that the server runs and lets this login in."


_ABOUT_A_PARAMETER = (
    asyncpg.UndefinedObjectError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.InvalidParameterValueError,
)
"""The errors that PostgreSQL raises about a parameter when a connection starts."""

_INSTEAD = {
    "channel_binding": "Write channel_binding=prefer, or leave it out.",
    "connect_timeout": "Write connect_timeout as a whole number of seconds.",
    "pgbouncer": "Write pgbouncer=true or pgbouncer=false.",
    "schema": "Write search_path instead of schema.",
    "ssl": "Write sslmode=require instead of ssl.",
}
"""Hints for parameters that PostgreSQL refuses, by their name in its message."""
