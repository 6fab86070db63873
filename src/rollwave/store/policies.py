"""Policy documents of campaigns: their revisions, and the one in force."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from functools import lru_cache

import asyncpg

from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.located import Located, Plain
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, validate
from rollwave.domain.policy.rules import OwnTimes, own_times
from rollwave.errors import NotFound
from rollwave.store.database import Connection
from rollwave.store.moments import moment
from rollwave.store.queries import load

_sql = load("policies")

MAX_CACHED = 256
"""Maximum number of documents that a process keeps, so that a claim need not read its campaign's document again."""


@dataclass(frozen=True, slots=True)
class DocumentInForce:
    """The document that a campaign follows. ``fault``: why it cannot be read. Both None: the campaign has none."""

    document: PolicyDocument | None = None
    fault: str | None = None


_cached: OrderedDict[tuple[str, int, int, str], DocumentInForce] = OrderedDict()


async def in_force(connection: Connection, row: asyncpg.Record) -> DocumentInForce:
    """The document of a campaign's row, as ``campaigns.get`` reads it."""
    return (await all_in_force(connection, [row]))[row["id"]]


async def all_in_force(connection: Connection, rows: Sequence[asyncpg.Record]) -> dict[int, DocumentInForce]:
    """The documents of campaigns of one tenant, by the campaign's id. Those that are not kept take one statement."""
    keys = {
        row["id"]: (row["tenant_id"], row["id"], row["policy_revision"], row["row_version"])
        for row in rows
        if row["policy_revision"] is not None and row["row_version"] is not None
    }
    found = {number: _cached[key] for number, key in keys.items() if key in _cached}
    if new := [key for number, key in keys.items() if number not in found]:
        arguments = [key[1] for key in new], [key[2] for key in new]
        texts = await connection.fetch(_sql["documents"], new[0][0], *arguments)
        read = {row["campaign_id"]: _read(row["document"], row["revision"]) for row in texts}
        found |= read
        _cached.update({key: read[key[1]] for key in new if key[1] in read})
    for number in found:
        _cached.move_to_end(keys[number])
    while len(_cached) > MAX_CACHED:
        _cached.popitem(last=False)
    return {row["id"]: found.get(row["id"]) or _without(row) for row in rows}


def _without(row: asyncpg.Record) -> DocumentInForce:
    revision = row["policy_revision"]
    return (
        DocumentInForce()
        if revision is None
        else DocumentInForce(fault=f"revision {revision} of the policy does not exist")
    )


@lru_cache(maxsize=MAX_CACHED)  # campaigns of one preset or stored policy share its document, and so its windows
def _read(text: str, revision: int) -> DocumentInForce:
    try:
        return DocumentInForce(validate(Located(json.loads(text))))
    except (InvalidPolicy, ValueError, RecursionError) as error:  # a host's SQL wrote it
        reason = error.fault if isinstance(error, InvalidPolicy) else str(error)
        return DocumentInForce(fault=f"revision {revision} of the policy cannot be read: {reason}")


def stored_times(row: asyncpg.Record) -> OwnTimes | None:
    """The values that are stored beside the document in force of a campaign's row. None: there is no document."""
    if row["row_version"] is None:
        return None
    retry_on = row["own_retry_on"]
    return OwnTimes(
        row["own_progress_timeout"],
        row["own_answer_timeout"],
        row["own_device_timeout"],
        row["own_max_attempts"],
        None if retry_on is None else tuple(retry_on),
    )


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a campaign's policy. ``data``: its document as it is stored, which a host may have written.

    ``by_name``: the name of the key ``by``; None: it has none.
    """

    number: int
    data: Plain
    by: str | None
    at: datetime
    reason: str | None
    by_name: str | None = None


async def revision(connection: Connection, tenant_id: str, campaign_id: int, number: int) -> Revision:
    """Read one revision.

    Raises:
        NotFound: the campaign has no such revision.
    """
    row = await connection.fetchrow(_sql["revision"], tenant_id, campaign_id, number)
    if row is None:
        raise NotFound(f"campaign {campaign_id} has no revision {number} of its policy")
    data = json.loads(row["document"])
    by, at = row["created_by"], moment(row["created_at"])
    return Revision(row["revision"], data, by, at, row["reason"], row["by_name"])


async def insert(
    connection: Connection,
    tenant_id: str,
    campaign_id: int,
    document: PolicyDocument,
    *,
    number: int,
    actor: str,
    reason: str | None = None,
) -> None:
    """Insert a revision. The campaign follows it once its row has this number."""
    # JSON without escapes: PostgreSQL reads an escape only if the database's encoding has the character.
    text = json.dumps(to_data(document), ensure_ascii=False)
    times = astuple(own_times(document))
    await connection.execute(_sql["insert"], tenant_id, campaign_id, number, text, actor, reason, *times)


async def last_revision(connection: Connection, tenant_id: str, campaign_id: int) -> int:
    """The number of the campaign's last revision, which need not be in force; 0: there is none."""
    return await connection.fetchval(_sql["last_revision"], tenant_id, campaign_id) or 0


async def put_in_force(
    connection: Connection, tenant_id: str, campaign_id: int, number: int, *, before: int | None
) -> bool:
    """Let the campaign follow revision ``number``. Needs the campaign's lock.

    ``before``: the revision in force until now; None: the flat columns. False: another one is, or the campaign ended.
    """
    return await connection.fetchval(_sql["put_in_force"], tenant_id, campaign_id, number, before) is not None


async def write_own_times(
    connection: Connection, tenant_id: str, campaign_id: int, revision: int, document: PolicyDocument
) -> None:
    """Store a document's timeouts and retries beside it. Needs the campaign's lock."""
    await connection.execute(_sql["write_own_times"], tenant_id, campaign_id, revision, *astuple(own_times(document)))


async def authors(connection: Connection, tenant_id: str, campaign_id: int) -> set[str]:
    """The ids of the API keys that created the campaign, and that wrote the revision in force."""
    rows = await connection.fetch(_sql["authors"], tenant_id, campaign_id)
    return {row["author"] for row in rows}
