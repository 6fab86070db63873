"""Reads one snapshot after another while others write, and checks rules that must hold in each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from rollwave.domain.execution import RANK, TERMINAL, ExecutionStatus
from rollwave.store.outage import CONNECTION_TROUBLE
from rollwave.tasks import failure_of
from tests.engine import Connection, connect
from tests.policy_audit.auditor import PolicyAuditor
from tests.support import end


@dataclass
class Auditor:
    """The number of snapshots checked, and the violations found. ``policies`` checks what a policy document says."""

    policies: PolicyAuditor = field(default_factory=PolicyAuditor)
    snapshots: int = 0
    wrong: list[str] = field(default_factory=list)
    _known: dict[tuple[str, int, str], tuple[ExecutionStatus, int]] = field(default_factory=dict)

    async def look(self, connection: Connection) -> None:
        """Check one snapshot."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            campaigns = await connection.fetch("SELECT * FROM ota_campaigns")
            points = await connection.fetch(
                "SELECT DISTINCT ON (tenant_id, campaign_id) * FROM ota_campaign_points"
                " ORDER BY tenant_id, campaign_id, at DESC"
            )
            rows = await connection.fetch(
                "SELECT tenant_id, campaign_id, device_id, status, attempt, completed_at, failed_before,"
                " failed_attempt FROM ota_device_status"
            )
            if any(each["policy_revision"] is not None for each in campaigns):
                self.wrong += await self.policies.look(connection)
        self.snapshots += 1
        counted: dict[tuple[str, int], dict[str, int]] = {}
        for row in rows:
            tally = counted.setdefault((row["tenant_id"], row["campaign_id"]), {})
            tally[row["status"]] = tally.get(row["status"], 0) + 1
            if row["status"] == "PENDING" and row["attempt"]:
                tally["claimed"] = tally.get("claimed", 0) + 1
            self._follow(row)
        last = {(each["tenant_id"], each["campaign_id"]): each for each in points}
        for campaign in campaigns:
            self._end_of_series(campaign, last.get((campaign["tenant_id"], campaign["id"])))
            self._compare(campaign, counted.get((campaign["tenant_id"], campaign["id"]), {}))

    def _compare(self, campaign: asyncpg.Record, tally: dict[str, int]) -> None:
        counters = campaign["succeeded"], campaign["failed"]
        if counters != (tally.get("SUCCESS", 0), tally.get("FAILED", 0)):
            self.wrong.append(f"campaign {campaign['id']} counts {counters}, its rows are {tally}")
        for status in ("PENDING", "DOWNLOADING", "INSTALLING", "SKIPPED"):
            counter = campaign[status.lower()]  # NULL: not counted yet. No counter is, while skipped is below zero.
            if (campaign["skipped"] or 0) >= 0 and counter not in (None, tally.get(status, 0)):
                self.wrong.append(f"campaign {campaign['id']} counts {counter} {status}, its rows are {tally}")
        unfinished = tally.keys() & {"PENDING", "DOWNLOADING", "INSTALLING"}
        if campaign["status"] == "COMPLETED" and (unfinished or campaign["completed_at"] is None):
            self.wrong.append(f"campaign {campaign['id']} is COMPLETED, its rows are {tally}")
        if campaign["policy_revision"] is not None:
            return  # its flat columns say nothing
        if campaign["pace_used"] > campaign["rollout_rate"]:
            self.wrong.append(f"campaign {campaign['id']} let {campaign['pace_used']} go in one tick")
        if campaign["max_in_flight"] is not None:
            in_flight = tally.get("DOWNLOADING", 0) + tally.get("INSTALLING", 0) + tally.get("claimed", 0)
            if in_flight > campaign["max_in_flight"]:
                self.wrong.append(f"campaign {campaign['id']} has {in_flight} in flight")

    def _end_of_series(self, campaign: asyncpg.Record, last: asyncpg.Record | None) -> None:
        """The series of an ended campaign ends with its counters, once the engine has no more work for it."""
        over = campaign["status"] == "COMPLETED" or (campaign["status"] == "ABORTED" and campaign["settled_at"])
        states = "pending", "downloading", "installing", "succeeded", "failed", "skipped"
        counters = {each: campaign[each] for each in states}
        if over and last is not None and {each: last[each] for each in states} != counters:
            self.wrong.append(f"campaign {campaign['id']} counts {counters}, its series ends with {dict(last)}")

    def _follow(self, row: asyncpg.Record) -> None:
        key = row["tenant_id"], row["campaign_id"], row["device_id"]
        status, attempt = ExecutionStatus(row["status"]), row["attempt"]
        was, was_attempt = self._known.get(key, (ExecutionStatus.PENDING, 0))
        # By an operator, or because the attempt has failed and the policy allows another one.
        retried = row["failed_attempt"] == attempt
        if was in TERMINAL:
            retried = was is ExecutionStatus.FAILED and bool(row["failed_before"])
        if was in TERMINAL and status is not was and not retried:
            self.wrong.append(f"{key} went from {was} to {status}")
        elif attempt < was_attempt:
            self.wrong.append(f"{key} went from attempt {was_attempt} back to {attempt}")
        elif attempt == was_attempt and RANK[status] < RANK[was] and not retried:
            self.wrong.append(f"{key} went from {was} back to {status} within attempt {attempt}")
        if (status in TERMINAL) != (row["completed_at"] is not None):
            self.wrong.append(f"{key} is {status}, completed_at is {row['completed_at']}")
        self._known[key] = status, attempt


@asynccontextmanager
async def auditing(database: str, rest: float = 0.0, policies: PolicyAuditor | None = None) -> AsyncIterator[Auditor]:
    """Audit for the whole block, also while the server fails, and fail at its end if a rule was violated.

    ``rest`` is the number of seconds between two snapshots.
    """
    auditor = Auditor(policies or PolicyAuditor())

    async def keep_looking() -> None:
        while True:
            with suppress(*CONNECTION_TROUBLE):
                async with connect(database) as connection:
                    while True:
                        await auditor.look(connection)
                        await asyncio.sleep(rest)
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(keep_looking())
    try:
        yield auditor
    finally:
        await end(looking)
    if (error := failure_of(looking)) is not None:
        raise error
    async with connect(database) as connection:
        await auditor.look(connection)
    assert auditor.wrong == [], "\n".join(auditor.wrong[:20])


@dataclass(frozen=True, slots=True)
class Commit:
    """A campaign as one transaction left it. ``claimed`` is the sum of the attempts of all devices."""

    interval: datetime
    claimed: int
    in_flight: int


async def record_commits(connection: Connection) -> None:
    """From now on PostgreSQL records, at each commit, how far a campaign has come."""
    await connection.execute("""
        CREATE TABLE commits (number bigserial, campaign bigint, pace_interval timestamptz, claimed int, in_flight int);
        CREATE FUNCTION note_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            INSERT INTO commits (campaign, pace_interval, claimed, in_flight)
            SELECT NEW.id, NEW.pace_opened_at, sum(attempt), count(*) FILTER (
                WHERE status IN ('DOWNLOADING', 'INSTALLING') OR status = 'PENDING' AND attempt > 0)
            FROM ota_device_status WHERE tenant_id = NEW.tenant_id AND campaign_id = NEW.id;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER note_commit AFTER UPDATE ON ota_campaigns
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_commit();
    """)


async def recorded_commits(connection: Connection, campaign: int) -> list[Commit]:
    """The recorded commits of a campaign, from its first claim on."""
    rows = await connection.fetch(
        "SELECT pace_interval, claimed, in_flight FROM commits"
        " WHERE campaign = $1 AND pace_interval IS NOT NULL ORDER BY number",
        campaign,
    )
    return [Commit(*row) for row in rows]
