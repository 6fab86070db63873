"""Policy documents of campaigns: their revisions, and the one in force."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import astuple, dataclass

import asyncpg

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, validate
from rollwave.domain.policy.document.text import Located
from rollwave.domain.policy.rules import OwnTimes, own_times
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("policies")

MAX_CACHED = 256
"""Maximum number of documents that a process keeps, so that a claim need not read its campaign's document again."""


@dataclass(frozen=True, slots=True)
class InForce:
    """The document that a campaign follows. ``fault``: why it cannot be read. Both None: the campaign has none."""

    document: PolicyDocument | None = None
    fault: str | None = None


_cached: OrderedDict[tuple[str, int, int, str], InForce] = OrderedDict()


async def in_force(connection: Connection, row: asyncpg.Record) -> InForce:
    """The document of a campaign's row, as ``campaigns.get`` reads it."""
    tenant_id, campaign_id, revision, version = (
        row[each] for each in ("tenant_id", "id", "policy_revision", "row_version")
    )
    if revision is None:
        return InForce()
    if version is None:
        return InForce(fault=f"revision {revision} of the policy does not exist")
    key = (tenant_id, campaign_id, revision, version)
    if (found := _cached.get(key)) is None:
        text = await connection.fetchval(_sql["document"], tenant_id, campaign_id, revision)
        found = _cached[key] = _read(text, revision)
        if len(_cached) > MAX_CACHED:
            _cached.popitem(last=False)
    _cached.move_to_end(key)
    return found


def _read(text: str, revision: int) -> InForce:
    try:
        return InForce(validate(Located(json.loads(text))))
    except (InvalidPolicy, ValueError, RecursionError) as error:  # a host's SQL wrote it
        reason = error.fault if isinstance(error, InvalidPolicy) else str(error)
        return InForce(fault=f"revision {revision} of the policy cannot be read: {reason}")


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


async def write_own_times(
    connection: Connection, tenant_id: str, campaign_id: int, revision: int, document: PolicyDocument
) -> None:
    """Store a document's timeouts and retries beside it. Needs the campaign's lock."""
    await connection.execute(_sql["write_own_times"], tenant_id, campaign_id, revision, *astuple(own_times(document)))
