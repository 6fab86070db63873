"""The progress of a campaign: its counters, which change with its executions, and its remaining devices.

Counters are compared with the execution rows and repaired. Rows that a host's own worker left in progress or
overwrote are taken over before the first count, and whenever one is seen later.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus, Place
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.domain.policy.budgets import Key
from rollwave.domain.reports.outcome import Tally
from rollwave.store import budgets, campaign_rows, policies
from rollwave.store.campaign_rows import Campaign, CampaignCounters
from rollwave.store.campaigns import missing
from rollwave.store.database import Connection
from rollwave.store.queries import load
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_sql = load("counters")

COUNTERS = ("succeeded", "failed", "sent", "pending", "downloading", "installing", "skipped")
"""The counter columns, which are kept equal to counts over the campaign's executions."""

NOT_COUNTED_OFFSET = 1_000_000_000
"""Number of devices by which the counter ``skipped`` is too low while a campaign's rows have never been counted.

So the counter is negative until the result of the comparison is added to it. Statements that read counters recognize
such a campaign by the sign, all with the same expression (a test compares them).
"""


class CellDifference(NamedTuple):
    """The numbers to add to one cell, so that it agrees with its rows."""

    wave: int
    segment: int
    waiting: int
    held: int
    in_flight: int
    succeeded: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counters and counts over the rows, in one snapshot, by column name. A counter is None if it is not counted yet.

    ``compared_before``: time of the last comparison, in seconds since 1970; None: there was none. ``cells``: the
    numbers to add to cells whose rows differ, under a policy document; ``budgets``: to the devices in flight of values
    of its budgets, in another snapshot.
    """

    counters: Mapping[str, int | None]
    rows: Mapping[str, int]
    compared_before: float | None
    cells: Sequence[CellDifference] = ()
    budgets: Mapping[Key, int] = field(default_factory=dict)

    @property
    def agree(self) -> bool:
        """Whether there is nothing to repair."""
        return self.counters == self.rows and not self.cells and not self.budgets

    @property
    def drifted(self) -> bool:
        """Whether a counter that people and guardrails use is wrong, because other SQL changed it or the rows."""
        return any(self.missed[name] for name in ("succeeded", "failed", "sent"))

    @property
    def devices(self) -> int:
        """The number of the campaign's devices, from its rows."""
        return sum(number for name, number in self.rows.items() if name != "sent")

    @property
    def missed(self) -> Mapping[str, int]:
        """The difference to add to each counter."""
        return {name: number - (self.counters[name] or 0) for name, number in self.rows.items()}


async def count(
    connection: Connection, tenant_id: str, tally: Tally, *, also: Collection[CampaignId] = ()
) -> list[CampaignCounters]:
    """Change counters by the rows that this transaction changed. Returns the new counters of those campaigns.

    Locks the rows of those campaigns, and of the campaigns in ``also``, in the order of their ids.
    """
    campaign_ids = sorted({campaign_id for (campaign_id, _), moved in tally.items() if moved} | set(also))
    by_status = ([tally[campaign_id, status] for campaign_id in campaign_ids] for status in ExecutionStatus)
    rows = await connection.fetch(_sql["count"], tenant_id, campaign_ids, *by_status) if campaign_ids else []
    return [campaign_rows.counters(row, (await policies.in_force(connection, row)).document) for row in rows]


async def compare(connection: Connection, tenant_id: str, campaign_id: int) -> Comparison:
    """Compare counters and rows. Reads every row of the campaign: for ten million that takes seconds.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    statement = "compare_placed" if await connection.fetchval(_sql["is_placed"], tenant_id, campaign_id) else "compare"
    row = await connection.fetchrow(_sql[statement], tenant_id, campaign_id, timeout=SCAN_TIMEOUT_SECONDS)
    if row is None:
        raise missing(campaign_id)
    return Comparison(
        {name: row[name] for name in COUNTERS},
        {name: row[f"rows_{name}"] for name in COUNTERS},
        row["compared_at"],
        tuple(CellDifference(*each) for each in json.loads(row["cells"] or "[]")),
        await budgets.compare(connection, tenant_id, campaign_id),
    )


async def begin_counting(connection: Connection, tenant_id: str, campaign_id: int) -> None:
    """Make counters that are NULL change with the rows from now on. A comparison then finds what they lack.

    Not applied: they already do.
    """
    await connection.execute(_sql["begin_counting"], tenant_id, campaign_id, NOT_COUNTED_OFFSET)


async def date_reconciliation(connection: Connection, campaign: Campaign) -> None:
    """Record that counters and rows have just been compared. Not applied: the campaign was deleted."""
    await connection.execute(_sql["date_reconciliation"], campaign.tenant_id, campaign.id)


async def repair(connection: Connection, campaign: Campaign, found: Comparison) -> bool:
    """Add the difference to the counters. False: they were compared or repaired since. Needs the campaign's lock."""
    missed = [found.missed[name] for name in COUNTERS]
    key = campaign.tenant_id, campaign.id
    applied = await connection.fetchval(_sql["repair"], *key, found.compared_before, *missed)
    if applied is None:
        return False
    if found.cells:
        columns = [list(column) for column in zip(*sorted(found.cells), strict=True)]
        await connection.execute(_sql["repair_cells"], *key, *columns)
    return True


class Adopted(NamedTuple):
    """A device that a host's earlier worker left in progress, with its state before and after the adoption.

    ``was`` is ``SKIPPED`` if the engine had skipped the device before the worker sent to it. ``failed_before``: the
    failure of this attempt is already in history. ``place``: of the device, under a policy document.
    """

    device_id: DeviceId
    was: ExecutionStatus
    became: ExecutionStatus
    attempt: int
    error: str
    failed_before: bool
    place: Place | None


async def adopt(
    connection: Connection, campaign: Campaign, *, progress_timeout: float, limit: int, skipped: Sequence[str]
) -> list[Adopted]:
    """Take over up to ``limit`` rows that a host's earlier worker left in progress.

    Each device has ``progress_timeout`` seconds for a report, and its device timeout begins now. A device that had
    finished gets its outcome back, unless its error is one of the ``skipped`` reasons: then the worker has sent to it
    since, and it is in progress. Needs the campaign's lock.
    """
    rows = await connection.fetch(_sql["adopt"], campaign.tenant_id, campaign.id, progress_timeout, limit, skipped)
    return [
        Adopted(
            *(device_id, ExecutionStatus(was), ExecutionStatus(became), attempt, error or "", failed_before),
            Place.read(*place),
        )
        for device_id, was, became, attempt, error, failed_before, *place in rows
    ]


async def any_left_behind(connection: Connection, campaign: Campaign) -> bool:
    """Whether a host's earlier worker left rows in progress that :func:`adopt` has not taken over yet."""
    return await connection.fetchval(_sql["any_left_behind"], campaign.tenant_id, campaign.id) is not None


async def leave(connection: Connection, campaign: Campaign, devices: Sequence[DeviceId]) -> None:
    """Leave overdue devices that had finished to :func:`adopt`. Needs the locks of their rows."""
    await connection.execute(_sql["leave"], campaign.tenant_id, campaign.id, devices)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Whether a campaign has devices ``waiting`` for their first command, ``open`` devices, or ``any`` devices.

    ``due_in``: seconds until the first lease, deadline or delay of an open device ends; None: there is none.
    """

    waiting: bool
    open: bool
    any: bool
    due_in: float | None = field(default=None, compare=False)

    @property
    def finished(self) -> bool:
        """Whether every device is terminal. False for a campaign without devices, which may be about to be inserted."""
        return self.any and not self.waiting and not self.open


async def outlook(connection: Connection, campaign: Campaign) -> Outlook:
    """Read which devices the campaign has left."""
    row = await connection.fetchrow(_sql["outlook"], campaign.tenant_id, campaign.id)
    assert row is not None  # a SELECT without FROM has one row
    due_in = row["due_in"]
    return Outlook(waiting=row["waiting"], open=due_in is not None, any=row["any"], due_in=due_in)


async def next_due(connection: Connection, campaign: Campaign) -> float | None:
    """Seconds until the campaign's first lease, deadline or delay ends, negative after that; None: there is none."""
    seconds: float | None = await connection.fetchval(_sql["next_due"], campaign.tenant_id, campaign.id)
    return seconds


async def in_flight(connection: Connection, campaign: Campaign, *, up_to: int) -> int:
    """Number of devices in flight, but at most ``up_to``."""
    flying: int = await connection.fetchval(_sql["in_flight"], campaign.tenant_id, campaign.id, up_to)
    return flying


async def any_taken(connection: Connection, tenant_id: str, campaign_id: int) -> bool:
    """Whether the broker has ever accepted the campaign's command for one of its devices."""
    return bool(await connection.fetchval(_sql["any_taken"], tenant_id, campaign_id))


async def count_pending(connection: Connection, tenant_id: str, campaign_id: int) -> int:
    """Number of PENDING devices. If the campaign is not counted yet: of devices never sent to, up to ten thousand."""
    pending: int = await connection.fetchval(_sql["count_pending"], tenant_id, campaign_id)
    return pending
