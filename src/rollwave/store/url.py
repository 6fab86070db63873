"""Converts database URLs as libpq, Prisma and others write them for asyncpg.

asyncpg passes unknown parameters to PostgreSQL, which refuses the connection. Parameters that have no meaning here are
dropped. PostgreSQL refuses any other unknown parameter by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit

from rollwave.errors import ConfigurationError

CONNECT_TIMEOUT_SECONDS = 5.0
"""Default number of seconds to connect. ``connect_timeout`` in the URL changes it, up to the longest one."""

LONGEST_CONNECT_SECONDS = 60.0

DIRECT = "Set ROLLWAVE_DATABASE_DIRECT_URL to PostgreSQL's own address, past the pooler."
"""The hint for a URL that leads through a pooler but must not."""

_ANY = re.compile("(?s).*")
_SECONDS = re.compile("[0-9]{1,9}")
_DROPPED = {
    "channel_binding": re.compile("disable|prefer|require"),
    "client_encoding": _ANY,  # asyncpg uses UTF-8, and PostgreSQL converts
    "connection_limit": _ANY,
    "gssencmode": re.compile("disable|prefer"),
    "load_balance_hosts": re.compile("disable"),
    "pgbouncer": re.compile("(?i)true|false|0|1"),
    "pool_timeout": _ANY,
    "schema": re.compile("public"),
    "sslcertmode": re.compile("disable|allow"),
    "sslcompression": re.compile("0"),
    "sslsni": re.compile("0|1"),
    # Each connection has our own limits.
    "keepalives": _ANY,
    "keepalives_count": _ANY,
    "keepalives_idle": _ANY,
    "keepalives_interval": _ANY,
    "tcp_user_timeout": _ANY,
    # This file reads it.
    "application_name": _ANY,
    "connect_timeout": _SECONDS,
    "fallback_application_name": _ANY,
}
"""Parameters that are not passed on to asyncpg and PostgreSQL if they have one of these values."""

_ALLOWED = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}
_FILES = ("sslcert", "sslkey", "sslrootcert")
_HOST = re.compile(r"(\[[^\]\s]+\]|[^\s:\[\]]*)(:[0-9]{1,5})?")
_NAME = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A parsed URL. ``pooled``: it says that it leads through PgBouncer. ``connect_timeout`` is in seconds."""

    dsn: str = field(repr=False)
    pooled: bool
    connect_timeout: float
    application_name: str


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark about a URL that works, with a hint."""

    text: str
    hint: str


def read(dsn: str) -> DatabaseUrl:
    """Read a URL.

    Raises:
        ConfigurationError: a parameter has a value that cannot be used. The message names the parameter.
        ValueError: the URL cannot be parsed. The message may quote it.
    """
    url = urlsplit(dsn)
    pairs = _pairs(url.query)
    values = _values(pairs)
    _check(values)
    kept = [pair for pair in pairs if not _is_dropped(*_name_and_value(pair))]
    scheme = "postgresql" if re.fullmatch(r"postgres|postgresql(\+\w+)?", url.scheme) else url.scheme
    return DatabaseUrl(
        dsn=url._replace(scheme=scheme, query="&".join(kept)).geturl(),
        pooled=_says_pooled(values),
        connect_timeout=_connect_timeout(values.get("connect_timeout", "")),
        application_name=values.get("application_name") or values.get("fallback_application_name") or "rollwave",
    )


def check_direct(dsn: str) -> None:
    """Check that ROLLWAVE_DATABASE_DIRECT_URL can be read, before anything connects.

    Raises:
        ConfigurationError: it cannot be read. The message does not quote it.
    """
    try:
        url = urlsplit(read(dsn).dsn)
    except ValueError:
        url = urlsplit("")
    hosts = url.netloc.rpartition("@")[2].split(",")
    if url.scheme != "postgresql" or not all(map(_HOST.fullmatch, hosts)):
        raise ConfigurationError(
            "ROLLWAVE_DATABASE_DIRECT_URL cannot be read",
            hint="Write it like postgresql://user@host:5432/name, special characters of a password as %XX.",
        )


def remarks(dsn: str, direct: str) -> list[Remark]:
    """Remarks about parameters that are ignored. A URL that cannot be read has none: its use fails.

    Args:
        dsn: the URL of connections that may lead through a pooler.
        direct: the URL that bypasses the pooler; the same URL if there is no pooler.
    """
    try:
        given, other = (_values(_pairs(urlsplit(each).query)) for each in (dsn, direct))
    except ValueError:
        return []
    found = []
    if any(map(_trusts_channel_binding, (given, other))):
        hint = "Verify the server by its certificate: sslmode=verify-full, and sslrootcert with the file of its CA."
        found.append(Remark("channel_binding=require is not supported and was ignored", hint))
    if _says_pooled(given) and dsn == direct:
        found.append(Remark("pgbouncer=true: prepared statements are off", DIRECT))
    if "connection_limit" in given:
        found.append(Remark("connection_limit was ignored", "Set ROLLWAVE_DATABASE_POOL_SIZE instead."))
    return found


def _connect_timeout(text: str) -> float:
    seconds = int(text) if _SECONDS.fullmatch(text) else 0
    return (
        min(seconds, LONGEST_CONNECT_SECONDS) or CONNECT_TIMEOUT_SECONDS
    )  # 0 means no limit, with which a problem would never be reported


def _pairs(query: str) -> list[str]:
    return [pair for pair in query.split("&") if pair]


def _trusts_channel_binding(values: Mapping[str, str]) -> bool:
    return values.get("channel_binding") == "require" and values.get("sslmode") != "verify-full"


def _says_pooled(values: Mapping[str, str]) -> bool:
    return values.get("pgbouncer", "").lower() in {"true", "1"}


def _values(pairs: list[str]) -> Mapping[str, str]:
    if not all("=" in pair and _NAME.fullmatch(_name_and_value(pair)[0]) for pair in pairs):
        raise ValueError("not a parameter")  # it may be a part of a password
    return dict(map(_name_and_value, pairs))


def _name_and_value(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return unquote_plus(name), unquote_plus(value)


def _is_dropped(name: str, value: str) -> bool:
    values = _DROPPED.get(name)
    return values is not None and values.fullmatch(value) is not None


def _check(values: Mapping[str, str]) -> None:
    for name, allowed in _ALLOWED.items():
        if name in values and values[name] not in allowed:
            raise ConfigurationError(
                f"{name} in the database URL has a value that is not supported",
                hint=f"Use one of {', '.join(allowed)}.",
            )
    for name in _FILES:
        if name in values and not Path(values[name]).is_file():
            raise ConfigurationError(
                f"{name} in the database URL names {values[name]}, which is no file",
                hint="Name a PEM file that this process can read.",
            )
