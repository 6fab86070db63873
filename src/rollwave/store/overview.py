"""The facts about campaigns of which the verdict is made, read for a whole page of campaigns at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from rollwave.domain.campaign import ABORTED_BY_OPERATOR, CANCELLED_BY_OPERATOR, FINAL, CampaignStatus
from rollwave.domain.events import ENGINE
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.overview.segments import MAX_SHOWN
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.store import campaign_rows, policies, standings
from rollwave.store.database import Connection
from rollwave.store.listeners import TAKEOVER_SECONDS
from rollwave.store.moments import Document
from rollwave.store.policies import DocumentInForce
from rollwave.store.queries import load
from rollwave.store.shown_waves import flat_waves
from rollwave.store.standings import Guarded

_sql = load("overview")

_BY_OPERATOR = frozenset({ABORTED_BY_OPERATOR, CANCELLED_BY_OPERATOR})

MAX_HEARD_READ = 100
"""Maximum number of devices in progress of a campaign that are looked at for their last report."""


@dataclass(frozen=True, slots=True)
class CampaignFacts:
    """A campaign for its verdict.

    ``row``: columns of the campaign and its firmware. ``breakdown``: devices by status, from its counters. ``waves``,
    ``stopped_by`` and ``guardrails``: as the API shows them; ``guardrails`` of an ended campaign only if they tripped,
    in a list of several campaigns. ``worst``: the segments that fail most, of all ``segments``. ``heard_slots``: the
    listener slots whose reports are received. ``document``: the policy document in force; None: there is none, or it
    cannot be read. ``from_versions``: as ``domain.overview.from_versions`` reads it; None: not looked at yet.
    """

    row: Mapping[str, Any]
    status: CampaignStatus
    breakdown: Mapping[str, int]
    waves: Sequence[Document]
    stopped_by: Sequence[Document]
    guardrails: Sequence[Document]
    worst: Sequence[Document]
    segments: int
    heard_slots: frozenset[int]
    document: PolicyDocument | None
    from_versions: Mapping[str, Any] | None


async def facts(
    connection: Connection,
    tenant_id: str,
    campaign_ids: Sequence[int],
    *,
    progress_timeout: float,
    ended_in_short: bool,
) -> dict[int, CampaignFacts]:
    """The facts about these campaigns, by id, without those that the tenant does not have.

    ``progress_timeout``: of campaigns that have none, in seconds. ``ended_in_short``: of the guardrails of ended
    campaigns, read only those that have tripped.
    """
    if not campaign_ids:
        return {}
    rows = await connection.fetch(
        _sql["campaigns"],
        *(tenant_id, list(campaign_ids), TAKEOVER_SECONDS, MAX_SHOWN, progress_timeout, MAX_HEARD_READ),
    )
    documents = await policies.all_in_force(connection, rows)
    guarded = [_guarded(row, documents[row["id"]], ended_in_short=ended_in_short) for row in rows]
    guardrails = await standings.standings(connection, tenant_id, guarded)
    return {row["id"]: _read(row, documents[row["id"]], guardrails[row["id"]]) for row in rows}


def _guarded(row: asyncpg.Record, in_force: DocumentInForce, *, ended_in_short: bool) -> Guarded:
    return Guarded(
        row["id"],
        row["SUCCESS"] or 0,
        row["FAILED"] or 0,
        row["abort_threshold"],
        row["abort_min_completed"],
        row["policy_revision"],
        in_force.document,
        in_short=ended_in_short and campaign_rows.status(row["status"]) in FINAL,
        by_operator=row["aborted_by"] not in {None, ENGINE} or (row["status_reason"] or "") in _BY_OPERATOR,
    )


def _read(row: asyncpg.Record, in_force: DocumentInForce, guardrails: Sequence[Document]) -> CampaignFacts:
    breakdown = _breakdown(row)
    waves = json.loads(row["waves"] or "[]")
    if row["policy_revision"] is None:
        ended = {"succeeded": breakdown["SUCCESS"], "failed": breakdown["FAILED"]}
        waves = flat_waves({**row, **ended}, waves)
    return CampaignFacts(
        dict(row),
        campaign_rows.status(row["status"]),
        breakdown,
        waves,
        json.loads(row["stopped_by"] or "[]"),
        guardrails,
        json.loads(row["worst"] or "[]"),
        row["segments"],
        frozenset(row["heard_slots"]),
        in_force.document,
        json.loads(row["from_versions"]) if row["from_versions"] else None,
    )


def _breakdown(row: asyncpg.Record) -> dict[str, int]:
    """The counters. Until a campaign is counted, all devices that have not ended count as PENDING."""
    counted = all(row[each] is not None for each in ExecutionStatus) and row["SKIPPED"] >= 0
    found = {each.value: max(0, row[each] or 0) for each in ExecutionStatus}
    if counted:
        return found
    ended = found["SUCCESS"] + found["FAILED"]
    left = max(0, (row["total_devices"] or 0) - ended)
    return dict.fromkeys(ExecutionStatus, 0) | {
        "PENDING": left,
        "SUCCESS": found["SUCCESS"],
        "FAILED": found["FAILED"],
    }
