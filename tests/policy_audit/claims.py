"""Claims: PostgreSQL records each one with what was in force, and none may have passed a closed gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from tests.policy_audit.snapshot import Campaign, Connection, Json, Row, seconds

_MINUTE = timedelta(minutes=1)


async def record_claims(connection: Connection) -> None:
    """From now on PostgreSQL records each claim, also one of the same attempt, in the transaction of the claim.

    That holds the campaign's lock, so status and wave are those by which the claim was made. Halts and
    freezes are read a moment after the claim read them. A lease is at least a second, and devices of closed segments
    are held for less (tests/chaos/workers.py).
    """
    await connection.execute("""
        CREATE TABLE noted_claims (
            number bigserial, campaign_id bigint, device_id text, attempt int, at timestamptz, status text, wave int,
            present_wave int, being_placed bool, revision int, halted_since timestamptz, frozen_since timestamptz);
        CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            INSERT INTO noted_claims
                (campaign_id, device_id, attempt, at, status, wave, present_wave, being_placed, revision,
                 halted_since, frozen_since)
            SELECT NEW.campaign_id, NEW.device_id, NEW.attempt, statement_timestamp(), c.status,
                   (NEW.position >> 44)::int - 1, c.wave, c.targeted_devices IS NOT NULL, c.policy_revision,
                   (SELECT b.starts_at FROM rollwave_brakes b WHERE b.tenant_id = NEW.tenant_id AND b.kind = 'halt'),
                   (SELECT min(GREATEST(b.starts_at, b.created_at)) FROM rollwave_brakes b
                    WHERE b.tenant_id = NEW.tenant_id AND b.kind = 'freeze' AND b.starts_at <= statement_timestamp()
                      AND b.ends_at > statement_timestamp())
            FROM ota_campaigns c
            WHERE c.tenant_id = NEW.tenant_id AND c.id = NEW.campaign_id;
            RETURN NULL;
        END $$;
        CREATE TRIGGER note_claim AFTER UPDATE ON ota_device_status
            FOR EACH ROW WHEN (
                NEW.attempt > OLD.attempt
                OR NEW.attempt = OLD.attempt AND NEW.attempt > NEW.sent_attempt AND OLD.due_at <= statement_timestamp()
                   AND NEW.due_at > statement_timestamp() + interval '0.95 s')
            EXECUTE FUNCTION note_claim();
    """)


class Claims:
    """Reads the recorded claims, each once."""

    def __init__(self, grace: float) -> None:
        """``grace``: seconds between the read of the gates and the claim, in which a gate may have closed."""
        self._grace = timedelta(seconds=grace)
        self._seen: set[int] = set()

    async def read(self, connection: Connection) -> list[Row]:
        """The claims that were committed since the last call, in any order."""
        try:
            async with connection.transaction():
                rows = await connection.fetch("SELECT * FROM noted_claims WHERE number <> ALL ($1)", list(self._seen))
        except asyncpg.UndefinedTableError:
            return []
        self._seen |= {row["number"] for row in rows}
        return [dict(row) for row in rows]

    def check(self, claims: Sequence[Row], campaign: Campaign) -> Iterator[str]:
        """Check the claims of a campaign."""
        for each in claims:
            if each["campaign_id"] == campaign.row["id"] and each["revision"] in campaign.documents:
                zone = campaign.labels_of(each).get("time_zone")
                for wrong in self._check(each, campaign.documents[each["revision"]], zone):
                    yield f"attempt {each['attempt']} of {each['device_id']} was claimed at {each['at']}: {wrong}"

    def _check(self, claim: Row, document: Json, zone: str | None) -> Iterator[str]:
        at: datetime = claim["at"]
        before = at - self._grace
        schedule = document.get("schedule") or {}
        if claim["status"] != "RUNNING":
            yield f"the campaign was {claim['status']}"
        if claim["being_placed"]:
            yield "its devices were being placed"
        if claim["attempt"] == 1 and claim["wave"] > claim["present_wave"]:
            yield f"the device is in wave {claim['wave']}, and the present one was {claim['present_wave']}"
        if claim["halted_since"] is not None and claim["halted_since"] < before:
            yield f"sending was halted since {claim['halted_since']}"
        frozen = None if schedule.get("ignore_freezes") else claim["frozen_since"]
        if frozen is not None and frozen < before:
            yield f"a freeze was in force since {frozen}"
        if "start" in schedule and at < datetime.fromisoformat(schedule["start"]):
            yield f"the schedule starts at {schedule['start']}"
        if "end" in schedule and before >= datetime.fromisoformat(schedule["end"]):
            yield f"the schedule ended at {schedule['end']}"
        if not (is_open(schedule, zone, at) or is_open(schedule, zone, before)):
            yield f"the windows were closed in {zone}: {schedule['windows']}"


def is_open(schedule: Json, device_zone: str | None, at: datetime) -> bool:
    """Whether the windows of a schedule are open for devices of a zone, found by looking at every minute before."""
    windows = schedule.get("windows") or []
    covering = {each["kind"] for each in windows if _covers(each, schedule, device_zone, at)}
    return "deny" not in covering and ("allow" in covering or not any(each["kind"] == "allow" for each in windows))


def _covers(window: Json, schedule: Json, device_zone: str | None, at: datetime) -> bool:
    cut = timedelta(seconds=seconds(window.get("cutoff", "0s")))
    if "start" in window:
        return datetime.fromisoformat(window["start"]) <= at < datetime.fromisoformat(window["end"]) - cut
    default = schedule.get("time_zone", "UTC")
    name = window.get("time_zone") or default
    zone = ZoneInfo((device_zone or default) if name == "device" else name)
    lasts = timedelta(seconds=seconds(window["duration"])) - cut
    begins = at.astimezone(UTC).replace(second=0, microsecond=0)
    while at - begins < lasts:
        if _fires(window["cron"], begins.astimezone(zone)):
            return True
        begins -= _MINUTE
    return False


def _fires(cron: str, local: datetime) -> bool:
    """Whether an expression of stars and numbers for minute and hour fires in this minute."""
    minute, hour, *days = cron.split()
    assert days == ["*", "*", "*"], f"the auditor does not know {cron}"
    return minute in {"*", str(local.minute)} and hour in {"*", str(local.hour)}
