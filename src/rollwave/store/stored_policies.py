"""Policies that a tenant has stored under a name, beside the presets that every tenant has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.located import Located
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, validate
from rollwave.domain.policy.presets import PRESETS, preset
from rollwave.errors import Conflict, NotFound
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import moment
from rollwave.store.page import Page, page
from rollwave.store.queries import load
from rollwave.store.rejected_values import refusing

_sql = load("stored_policies")


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy with a name. A preset has no ``changed_at`` and ``changed_by``."""

    name: str
    document: PolicyDocument
    changed_at: datetime | None = None
    changed_by: str | None = None


async def read(connection: Connection, tenant_id: str, name: str) -> StoredPolicy:
    """The preset, or the tenant's policy, of this name.

    Raises:
        NotFound: there is none.
        Conflict: other SQL has written what is no policy.
    """
    if (found := preset(name)) is not None:
        return StoredPolicy(name, found)
    row = await connection.fetchrow(_sql["get"], tenant_id, name)
    if row is None:
        raise NotFound(f"no policy {name}", hint=f"List the policies. Presets: {', '.join(PRESETS)}.")
    try:
        document = validate(Located(json.loads(row["document"])))
    except (InvalidPolicy, ValueError, RecursionError) as error:
        reason = error.fault if isinstance(error, InvalidPolicy) else str(error)
        raise Conflict(f"the policy {name} cannot be read: {reason}", hint="Store it anew.") from error
    return StoredPolicy(name, document, moment(row["changed_at"]), row["changed_by"])


async def get(pool: Pool, tenant_id: str, name: str) -> StoredPolicy:
    """The preset, or the tenant's policy, of this name.

    Raises:
        NotFound: there is none.
        Conflict: other SQL has written what is no policy.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        return await read(connection, tenant_id, name)


async def find(pool: Pool, tenant_id: str, *, limit: int, cursor: str | None = None) -> Page:
    """A page of the tenant's policies without their documents, ordered by name. Presets are not among them."""
    async with tenant_transaction(pool, tenant_id) as connection:
        records = await connection.fetch(_sql["page"], tenant_id, cursor, limit + 1)
        total = await connection.fetchval(_sql["count"], tenant_id)
    return page(records, total, limit=limit, key="name")


async def put(pool: Pool, tenant_id: str, name: str, document: PolicyDocument, *, actor: str) -> StoredPolicy:
    """Store a policy, or replace it. Campaigns that were created with it keep their own copy.

    Raises:
        Conflict: this is the name of a preset.
        InvalidInput: the database's encoding lacks a character of it.
    """
    _require_own(name)
    text = json.dumps(to_data(document), ensure_ascii=False)
    async with refusing(pool), tenant_transaction(pool, tenant_id) as connection:
        await connection.execute(_sql["put"], tenant_id, name, text, actor)
        return await read(connection, tenant_id, name)


async def delete(pool: Pool, tenant_id: str, name: str) -> None:
    """Delete a policy. Campaigns that were created with it keep their own copy.

    Raises:
        NotFound: there is none.
        Conflict: this is the name of a preset.
    """
    _require_own(name)
    async with tenant_transaction(pool, tenant_id) as connection:
        if await connection.fetchval(_sql["delete"], tenant_id, name) is None:
            raise NotFound(f"no policy {name}", hint="List the policies to see their names.")


def _require_own(name: str) -> None:
    if name in PRESETS:
        raise Conflict(f"{name} is a preset, which cannot be changed", hint="Store the policy under another name.")
