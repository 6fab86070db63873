"""The counters in a campaign's row: moved with its executions, compared with them, repaired."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.reports.outcome import Tally
from rollwave.store.campaigns import SCAN_TIMEOUT_SECONDS, Campaign, Standing, missing, standing
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("counters")

COUNTERS = ("succeeded", "failed", "sent", "pending", "downloading", "installing", "skipped")
"""The columns that are kept equal to what a campaign's executions say."""

NOT_COUNTED_OFFSET = 1_000_000_000
"""Number of devices by which the counter ``skipped`` is too low while a campaign's rows have never been counted.

So that counter is below zero until the comparison with the rows is added to it. Statements that read counters recognize
such a campaign by its sign, all with the same expression (a test compares them).
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counters and what the rows say, in one snapshot, each by its column's name; None where nobody has counted yet.

    ``compared_before`` is when they were compared last, in seconds since 1970; None: never.
    """

    counters: Mapping[str, int | None]
    rows: Mapping[str, int]
    compared_before: float | None

    @property
    def agree(self) -> bool:
        """Whether there is nothing to repair."""
        return self.counters == self.rows

    @property
    def drifted(self) -> bool:
        """Whether a counter that people and guardrails use was wrong: a host's SQL changed it, or the rows."""
        return any(self.missed[name] for name in ("succeeded", "failed", "sent"))

    @property
    def devices(self) -> int:
        """The campaign's devices, by its rows."""
        return sum(number for name, number in self.rows.items() if name != "sent")

    @property
    def missed(self) -> Mapping[str, int]:
        """What the counters lack."""
        return {name: number - (self.counters[name] or 0) for name, number in self.rows.items()}


async def count(
    connection: Connection, tenant_id: str, tally: Tally, *, also: Collection[CampaignId] = ()
) -> list[Standing]:
    """Move counters by the rows that this transaction moved; returns where each of those campaigns now stands.

    Locks the rows of those campaigns, and of the campaigns in ``also``, in the order of their ids.
    """
    campaign_ids = sorted({campaign_id for (campaign_id, _), moved in tally.items() if moved} | set(also))
    by_status = ([tally[campaign_id, status] for campaign_id in campaign_ids] for status in ExecutionStatus)
    rows = await connection.fetch(_sql["count"], tenant_id, campaign_ids, *by_status) if campaign_ids else []
    return [standing(row) for row in rows]


async def compare(connection: Connection, tenant_id: str, campaign_id: int) -> Comparison:
    """Compare counters and rows. Reads every row of the campaign: for ten million that takes seconds.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    row = await connection.fetchrow(_sql["compare"], tenant_id, campaign_id, timeout=SCAN_TIMEOUT_SECONDS)
    if row is None:
        raise missing(campaign_id)
    return Comparison(
        {name: row[name] for name in COUNTERS},
        {name: row[f"rows_{name}"] for name in COUNTERS},
        row["compared_at"],
    )


async def begin_counting(connection: Connection, tenant_id: str, campaign_id: int) -> None:
    """Have counters that are NULL move with the rows from now on; comparing them shows what they lack.

    Not applied: they do so already.
    """
    await connection.execute(_sql["begin_counting"], tenant_id, campaign_id, NOT_COUNTED_OFFSET)


async def date_reconciliation(connection: Connection, campaign: Campaign) -> None:
    """Record that counters and rows have just been compared. Not applied: the campaign is gone."""
    await connection.execute(_sql["date_reconciliation"], campaign.tenant_id, campaign.id)


async def repair(connection: Connection, campaign: Campaign, found: Comparison) -> bool:
    """Add what the counters lacked. False (not applied): they were compared or repaired again since. Needs the lock."""
    missed = [found.missed[name] for name in COUNTERS]
    applied = await connection.fetchval(_sql["repair"], campaign.tenant_id, campaign.id, found.compared_before, *missed)
    return applied is not None
