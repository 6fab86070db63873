"""Creates, verifies, lists and revokes API keys: ``rollwave.<tenant>.<key id>.<secret>``.

A key contains its tenant, so it is looked up in a transaction of that tenant, like everything else. The tenant is
percent-encoded, since a key is sent in an HTTP header.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote, unquote

from rollwave.domain.ids import ID_RULE, is_valid_id
from rollwave.domain.role import Role
from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import with_moments
from rollwave.store.outage import ValueRefused
from rollwave.store.queries import load

_sql = load("access")

_key_id = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Grant:
    """The tenant and the role of a key."""

    tenant_id: str
    key_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored, without its secret. ``role`` is the word in the row; None: no expiry, or not revoked."""

    key_id: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def key_id_of(key: str) -> str:
    """The id of a key that :func:`create` has returned."""
    return key.rsplit(".", 2)[1]


async def create(pool: Pool, tenant_id: str, role: Role, *, name: str = "", expires_in: timedelta | None = None) -> str:
    """Create a key and return its full text, which is not stored. Registers the tenant if it is new.

    Raises:
        InvalidInput: the tenant id is not valid.
        Conflict: the tenant must be registered in the host's own table first.
    """
    if not is_valid_id(tenant_id):
        raise InvalidInput(f"{tenant_id!r} cannot be a tenant id", hint=f"Use {ID_RULE}.")
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    lifetime = None if expires_in is None else expires_in.total_seconds()
    async with tenant_transaction(pool, tenant_id) as connection:
        await _require_tenant(connection, tenant_id)
        await connection.execute(_sql["insert"], tenant_id, key_id, name, role, _digest(secret), lifetime)
    return f"rollwave.{_encoded(tenant_id)}.{key_id}.{secret}"


async def _require_tenant(connection: Connection, tenant_id: str) -> None:
    if await connection.fetchval(_sql["is_registered"], tenant_id):
        return
    if await connection.fetchval(_sql["are_a_hosts"]):
        raise Conflict(
            f"tenant {tenant_id} is not in the table tenants, which belongs to the service that made it",
            hint="Create the tenant in that service, then create the key.",
        )
    await connection.execute(_sql["register"], tenant_id)


async def verify(pool: Pool, key: str) -> Grant | None:
    """The tenant and role of ``key``; None: it is malformed, unknown, expired or revoked."""
    # Split from the right: a tenant id may contain dots, the other parts never do.
    prefix, *rest = key.rsplit(".", 2)
    brand, _, encoded = prefix.partition(".")
    tenant_id = unquote(encoded)
    if brand != "rollwave" or len(rest) != 2 or not is_valid_id(tenant_id) or _encoded(tenant_id) != encoded:
        return None
    key_id, secret = rest
    if not _key_id.fullmatch(key_id):
        return None
    try:
        async with tenant_transaction(pool, tenant_id) as connection:
            row = await connection.fetchrow(_sql["usable"], tenant_id, key_id)
            if row is None or not hmac.compare_digest(row["secret_sha256"], _digest(secret)):
                return None
            if row["note_use"]:
                await connection.execute(_sql["note_use"], tenant_id, key_id)
    except ValueRefused:  # the database's encoding lacks a character of this tenant id
        return None
    return Grant(tenant_id, key_id, Role(row["role"]))


async def recheck(pool: Pool, tenant_id: str, key_id: str) -> Grant | None:
    """The grant of a key that was verified before; None: it has expired or was revoked since, or its tenant is gone."""
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(_sql["usable"], tenant_id, key_id)
        if row is not None and row["note_use"]:
            await connection.execute(_sql["note_use"], tenant_id, key_id)
    return None if row is None else Grant(tenant_id, key_id, Role(row["role"]))


async def recheck_all(pool: Pool, tenant_id: str, key_ids: Collection[str]) -> Mapping[str, Role]:
    """The present roles of those of the tenant's keys that are still valid, by key id."""
    async with tenant_transaction(pool, tenant_id) as connection:
        rows = await connection.fetch(_sql["usable_of"], tenant_id, list(key_ids))
    return {row["key_id"]: Role(row["role"]) for row in rows}


async def list_keys(pool: Pool, tenant_id: str) -> list[ApiKey]:
    """Every key of the tenant, oldest first."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return [ApiKey(**with_moments(row)) for row in await connection.fetch(_sql["all"], tenant_id)]


async def revoke(pool: Pool, tenant_id: str, key_id: str) -> None:
    """Revoke a key, with immediate effect. Revoking it again changes nothing.

    Raises:
        NotFound: this tenant has no such key.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        if await connection.fetchval(_sql["revoke"], tenant_id, key_id) is None:
            raise NotFound(f"no API key {key_id}", hint="List the tenant's keys to see their ids.")


def _encoded(tenant_id: str) -> str:
    return quote(tenant_id, safe=":")


def _digest(secret: str) -> str:
    # A fast hash is safe here: 256 random bits cannot be guessed at any number of hashes per second.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
