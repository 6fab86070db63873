"""Conditions that must hold at the end of a schedule."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import asyncpg

from rollwave.mqtt.topics import parse_status_topic
from tests.chaos.injected_faults import unlogged_programming_errors
from tests.chaos.schedule import Plan
from tests.chaos.workers import Workers
from tests.engine import Connection, Devices, breakdown, campaign_row, connect, wait_until_ended
from tests.policy_audit.wire import Period, Wire
from tests.support import eventually

NEVER_LOGGED = ("ota_counters_repaired", "was never awaited", "Task exception was never retrieved", "ota_task_stuck")
"""Log lines of the MQTT library about cancelled calls (``Future exception …``). They are not errors of the engine."""

LOG_DELAY_SECONDS = 20.0
"""Seconds within which the last error that was raised must be in the log."""

ACTIVITY = """
    SELECT id, status, active_since, active_at, suspended_for, suspended_lately, completed_at, statement_timestamp()
    FROM ota_campaigns
"""
"""Columns that deadlines depend on, shown for a device that failed though its firmware is good."""


async def ended(host: Connection, campaign: int, plan: Plan, *, within: float) -> list[str]:
    """Check that a campaign ends as planned, with counters equal to its rows."""
    await wait_until_ended(host, campaign, plan.ends, tenant=plan.tenant, timeout=within)
    found = await breakdown(host, campaign, plan.tenant)
    _, succeeded, failed = await campaign_row(host, campaign, plan.tenant)
    wrong = []
    if (succeeded, failed) != (found.get("SUCCESS", 0), found.get("FAILED", 0)):
        wrong.append(f"campaign {campaign} counts {succeeded} and {failed}, its rows are {found}")
    if plan.ends == "COMPLETED" and "SKIPPED" in found:
        wrong.append(f"campaign {campaign} completed with devices skipped: {found}")
    return wrong


async def differences(host: Connection, fleet: Devices, campaigns: Mapping[int, Plan], *, forgetful: bool) -> list[str]:
    """Rows whose status differs from the first final status that their device reported, in that attempt if it says so.

    Two kinds of device are left out: one skipped after a stop, and one of a stopped campaign whose command or report
    the broker has lost.
    """
    first_outcomes: dict[tuple[str, str, int, int | None], str] = {}
    by_attempt: set[int] = set()
    for topic, payload in fleet.accepted:
        source = parse_status_topic(topic)
        report = json.loads(payload) if source else {}
        if source and report["status"] in ("SUCCESS", "FAILED"):
            attempt = report.get("attempt")
            by_attempt |= {report["campaign_id"]} if attempt is not None else set()
            first_outcomes.setdefault((*source, report["campaign_id"], attempt), report["status"])
    rows = await host.fetch("SELECT * FROM ota_device_status")
    differing = Counter(
        (
            f"{row['status']} ({row['error_message']})",
            row["status"],
            first_outcomes.get(
                (
                    *(row["tenant_id"], row["device_id"], row["campaign_id"]),
                    row["attempt"] if row["campaign_id"] in by_attempt else None,
                )
            ),
        )
        for row in rows
        if row["status"] != "SKIPPED"
        and not (forgetful and campaigns[row["campaign_id"]].ends == "ABORTED" and _given_up(row))
    )
    wrong = [f"{n} devices are {all_} and said {was}" for (all_, is_, was), n in differing.items() if is_ != was]
    if wrong:
        wrong += [str(dict(row)) for row in await host.fetch(ACTIVITY)]
        wrong += [str(dict(row)) for row in rows if row["failed_reason"] in ("overdue", "no_answer", "no_progress")]
    return wrong


def _given_up(row: asyncpg.Record) -> bool:
    return (row["error_message"] or "").startswith(("no ", "an attempt failed"))


def bodies(fleet: Devices) -> list[str]:
    """Check that each campaign had one command body."""
    found = {(each.campaign, each.body) for each in fleet.commands}
    return [] if len(found) == len(dict(found)) else [f"a campaign sent different bodies: {found}"]


async def late_commands(
    database: str, fleet: Devices, quarantines: Mapping[int, Mapping[str, Sequence[Period]]]
) -> list[str]:
    """Commands that reached a device long after a gate had closed. ``quarantines``: by campaign and device."""
    async with connect(database) as host:
        now: datetime = await host.fetchval("SELECT clock_timestamp()")
        age = time.monotonic()
        wire = await Wire.read(host)
    commands = [(now - timedelta(seconds=age - each.at), each) for each in fleet.commands]
    return list(wire.late(commands, quarantines))[:20]


async def logs(workers: Workers) -> list[str]:
    """Check that no worker ended by itself, and that each logged its injected errors and no unhandled error."""

    def all_errors_logged() -> bool:
        workers.note_ended()
        return not any(map(unlogged_programming_errors, workers.logs_of_survivors()))

    wrong = []
    try:
        await eventually(all_errors_logged, timeout=LOG_DELAY_SECONDS)
    except AssertionError:
        left = [each for log in workers.logs_of_survivors() for each in unlogged_programming_errors(log)]
        wrong.append(f"errors without a traceback in the log: {left}")
    output = workers.output()
    wrong += [f"a worker logged {each!r}" for each in NEVER_LOGGED if each in output]
    if gone := workers.unexpected_ends():
        wrong.append(f"workers ended by themselves: {gone}")
    return wrong
