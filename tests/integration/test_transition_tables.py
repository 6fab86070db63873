"""The transition tables, the guards in SQL and the diagrams agree: each cause is tried from every status."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from rollwave.domain import campaign as campaign_table
from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.campaign import Action, CampaignRef, CampaignStatus
from rollwave.domain.execution import IN_PROGRESS, RANK, REPORTABLE, TERMINAL, TRANSITIONS, Cause, ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.engine import stop
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.operations import abort_campaign, pause_campaign, start_campaign
from rollwave.engine.upkeep import deadlines
from rollwave.engine.upkeep.look import Upkeep
from rollwave.errors import Conflict
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, retries
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection as Inside
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed, Times
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_row,
    claim_commands,
    connect,
    device_row,
    insert_campaign,
)

S, C, A = ExecutionStatus, Cause, Action
SETTINGS = Settings()
TIMES = Times(60, 60, 600)
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"

Try: TypeAlias = Callable[[Inside, Campaign, str], Awaitable[object]]


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


def device_reported(word: ExecutionStatus) -> Try:
    async def report(connection: Inside, campaign: Campaign, device: str) -> None:
        await executions.apply_reports(
            connection, TENANT, [DeviceReport(DeviceId(device), Report(campaign.id, word))], TIMES, max_attempts=3
        )

    return report


async def acknowledge(connection: Inside, campaign: Campaign, device: str) -> None:
    await executions.mark_sent(connection, TENANT, campaign.id, [Claimed(DeviceId(device), 1)], TIMES)


async def fall_silent(connection: Inside, campaign: Campaign, _device: str) -> None:
    await deadlines.sweep(connection, campaign, under_policy(campaign, SETTINGS).policy, sends_on=True)
    await connection.execute("UPDATE ota_device_status SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL")
    await claim_commands(connection, campaign, tokens=9, fresh=0)


async def fail_and_try_again(connection: Inside, campaign: Campaign, device: str) -> None:
    await device_reported(S.FAILED)(connection, campaign, device)
    await fall_silent(connection, campaign, device)


async def skip_the_rest(connection: Inside, campaign: Campaign, _device: str) -> None:
    await executions.skip_unsent(connection, TENANT, campaign.id, limit=9, reason="stopped")


async def claim(connection: Inside, campaign: Campaign, _device: str) -> None:
    await claim_commands(connection, campaign, tokens=9, fresh=9)


async def retry_by_hand(connection: Inside, campaign: Campaign, device: str) -> None:
    await retries.again(connection, TENANT, campaign.id, retries.Which(), [DeviceId(device)])


WAITING = {"attempt": "0", "sent_attempt": "0", "heard_attempt": "0", "started_at": "NULL", "due_at": "NULL"}
CLAIMED = WAITING | {"attempt": "1", "due_at": "now() + interval '1 hour'"}
SENT = {
    "attempt": "1",
    "sent_attempt": "1",
    "heard_attempt": "1",
    "started_at": "now()",
    "due_at": "now() - interval '1 second'",
}


def columns(status: ExecutionStatus, cause: Cause) -> dict[str, str]:
    """The row's other columns when the cause occurs."""
    if status in TERMINAL and (status, cause) not in TRANSITIONS:
        return SENT | {"due_at": "NULL", "completed_at": "now()"}
    if cause in (C.STOPPED, C.UNSENDABLE) and status is S.PENDING:
        return WAITING
    return CLAIMED if status is S.PENDING or cause is C.ACKNOWLEDGED else SENT


CAUSES: dict[Cause, tuple[list[Try], str]] = {
    C.ACKNOWLEDGED: ([acknowledge], "dev-1"),
    C.REPORTED: ([device_reported(word) for word in sorted(REPORTABLE)], "dev-1"),
    C.RETRIED: ([fail_and_try_again], "dev-1"),
    C.RETRIED_BY_OPERATOR: ([retry_by_hand], "dev-1"),
    C.SILENT: ([fall_silent], "dev-1"),
    C.EXHAUSTED: ([fall_silent], "dev-1"),
    C.STOPPED: ([skip_the_rest], "dev-1"),
    C.UNSENDABLE: ([claim], "dev/1"),
}


@pytest.mark.parametrize("cause", list(Cause))
async def test_each_cause_leads_to_exactly_the_states_in_the_table(host: Connection, pool: Pool, cause: Cause) -> None:
    tries, device = CAUSES[cause]
    number = await insert_campaign(
        host,
        [device],
        abort_threshold=1.0,
        max_attempts=1 if cause is C.EXHAUSTED else 3,
        retry_on=["reported", "rejected"] if cause is C.RETRIED else None,
    )
    for status in S:
        reached: set[ExecutionStatus] = set()
        for attempted in tries:
            row = await set_row(host, number, device, status, cause)
            async with tenant_transaction(pool, TENANT) as connection:
                await attempted(connection, await campaigns.lock(connection, TENANT, number), device)
            now = await device_row(host, number, device)
            if (now["status"], now["attempt"]) != (status, row["attempt"]):
                reached.add(S(now["status"]))
            if status in TERMINAL and (status, cause) not in TRANSITIONS:
                assert now == row, f"{cause} changed a row that was {status}"
        assert reached == TRANSITIONS.get((status, cause), frozenset()), (status, cause)


async def set_row(
    host: Connection, number: int, device: str, status: ExecutionStatus, cause: Cause
) -> dict[str, object]:
    """Set the row as if it had reached ``status`` by itself."""
    row = {"failed_attempt": "0", "failed_reason": "NULL", "completed_at": "NULL", "progress_pct": "0"}
    row |= columns(status, cause)
    await host.execute(
        f"UPDATE ota_device_status SET status = $1, {', '.join(f'{name} = {value}' for name, value in row.items())}",
        status,
    )
    return await device_row(host, number, device)


async def test_a_report_changes_nothing_before_dispatch(host: Connection, pool: Pool) -> None:
    number = await insert_campaign(host, 1)
    for word in sorted(REPORTABLE):
        row = await device_row(host, number, "dev-1")
        async with tenant_transaction(pool, TENANT) as connection:
            await device_reported(word)(connection, await campaigns.lock(connection, TENANT, number), "dev-1")
        assert await device_row(host, number, "dev-1") == row


async def release(connection: Inside, campaign: Campaign, device: str) -> None:
    await executions.release(
        connection, TENANT, campaign.id, [Claimed(DeviceId(device), 1)], delay=1, refusal=Refusal.REJECTED
    )


@pytest.mark.parametrize("settle", [acknowledge, release])
async def test_a_late_answer_of_the_broker_changes_nothing(host: Connection, pool: Pool, settle: Try) -> None:
    """Attempt 1 was acknowledged before, or the second attempt is on its way, or the device has ended."""
    number = await insert_campaign(host, 1)
    for status, attempt in itertools.product(set(S) - {S.PENDING}, (1, 2)):
        await set_row(host, number, "dev-1", status, C.REPORTED)
        await host.execute("UPDATE ota_device_status SET attempt = $1", attempt)
        row = await device_row(host, number, "dev-1")
        async with tenant_transaction(pool, TENANT) as connection:
            await settle(connection, await campaigns.lock(connection, TENANT, number), "dev-1")
        assert await device_row(host, number, "dev-1") == row, (status, attempt)


async def test_a_command_that_the_broker_never_accepted_is_not_counted_as_silence(host: Connection, pool: Pool) -> None:
    """The lease of a second attempt has ended. It is sent again, and does not count as a failed attempt."""
    number = await insert_campaign(host, 1, max_attempts=2)
    for status in sorted(IN_PROGRESS):
        await set_row(host, number, "dev-1", status, C.SILENT)
        await host.execute("UPDATE ota_device_status SET attempt = 2")
        row = await device_row(host, number, "dev-1")
        async with tenant_transaction(pool, TENANT) as connection:
            campaign = await campaigns.lock(connection, TENANT, number)
            await deadlines.sweep(connection, campaign, under_policy(campaign, SETTINGS).policy, sends_on=True)
        assert await device_row(host, number, "dev-1") == row
    assert not await host.fetchval("SELECT count(*) FROM ota_campaign_history")


async def test_a_stop_skips_a_device_that_is_being_sent_to_only_after_its_lease(host: Connection, pool: Pool) -> None:
    campaign = CampaignId(await insert_campaign(host, 2))

    async def skip() -> int:
        async with tenant_transaction(pool, TENANT) as connection:
            return await executions.skip_unsent(connection, TENANT, campaign, limit=9, reason="stopped")

    async with tenant_transaction(pool, TENANT) as connection:
        await claim_commands(connection, await campaigns.lock(connection, TENANT, campaign), tokens=1, fresh=1)
    assert await skip() == 1
    assert await breakdown(host, campaign) == {"PENDING": 1, "SKIPPED": 1}
    await host.execute("UPDATE ota_device_status SET due_at = now() - interval '1 s' WHERE status = 'PENDING'")
    assert await skip() == 1
    assert await breakdown(host, campaign) == {"SKIPPED": 2}


async def test_the_state_order_in_sql_is_the_tables(host: Connection) -> None:
    ranks = {status: await host.fetchval("SELECT ota_status_rank($1)", status) for status in S}
    assert ranks == dict(RANK)
    assert await host.fetchval("SELECT ota_status_rank('CANCELLED')") is None, "a host's own status has no rank"
    words = await host.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'ota_device_status'::regclass AND contype = 'c'"
    )
    assert set(re.findall(r"'([A-Z]+)'", words)) == set(S)


REPORTED_STATUS = {A.FINISH: "SUCCESS", A.TRIP: "FAILED"}
"""The status of the campaign's only device at that time."""


@pytest.mark.parametrize("action", list(Action))
async def test_each_action_changes_a_campaigns_status_by_the_table(
    host: Connection, pool: Pool, action: Action
) -> None:
    number = await insert_campaign(host, 1)
    await host.execute("UPDATE ota_device_status SET status = $1", REPORTED_STATUS.get(action, "PENDING"))
    await host.execute("UPDATE ota_campaigns SET pending = 0, downloading = 0, installing = 0, skipped = 0")  # counted
    for status in CampaignStatus:
        await host.execute(
            "UPDATE ota_campaigns SET status = $1, failed = $2, succeeded = $3, abort_threshold = $4",
            status,
            int(action is A.TRIP),
            int(action is A.FINISH),
            -1.0 if action is A.HOLD else 0.5,
        )
        refused = await act(pool, number, action)
        to = campaign_table.after(status, action)
        now = (await campaign_row(host, number))[0]
        assert now == (to or status), (status, action)
        assert refused == (to is None and action in (A.START, A.PAUSE, A.ABORT)), (status, action)


async def act(pool: Pool, number: int, action: Action) -> bool:
    """Perform the action in its usual way. Returns whether it was refused."""
    asked = {A.START: start_campaign, A.PAUSE: pause_campaign, A.ABORT: abort_campaign}
    try:
        if action in asked:
            await asked[action](pool, TENANT, number, actor="operator")
            return False
        if action is A.FINISH:
            await Upkeep(pool, SETTINGS).look_after(
                CampaignRef(TenantId(TENANT), CampaignId(number), CampaignStatus.RUNNING)
            )
            return False
        async with tenant_transaction(pool, TENANT) as connection:
            counters = stop.counters_of(await campaigns.lock(connection, TENANT, number))
            await stop.judge(connection, TENANT, counters)
    except Conflict:
        return True
    return False


def drawn(name: str) -> set[tuple[str, str, str]]:
    """The edges of a diagram in the handbook: from, to, label."""
    text = ARCHITECTURE.read_text("utf-8")
    [part] = re.findall(rf"<!-- generated: {name} -->(.*?)<!-- end: {name} -->", text, re.DOTALL)
    return set(re.findall(r"^ +([A-Z]+) --> ([A-Z]+): (.+)$", part, re.MULTILINE))


def test_the_diagrams_have_exactly_the_tables_transitions() -> None:
    assert drawn("execution") == {
        (status, to, cause) for (status, cause), targets in TRANSITIONS.items() for to in targets
    }
    assert drawn("campaign") == {
        (status, to, action) for (status, action), to in campaign_table.TRANSITIONS.items() if to is not status
    }


def test_the_diagrams_have_the_tables_first_and_final_states() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    assert set(re.findall(r"([A-Z]+) --> \[\*\]", text)) == TERMINAL | campaign_table.FINAL
    assert set(re.findall(r"\[\*\] --> ([A-Z]+)", text)) == {S.PENDING, CampaignStatus.CREATED}
