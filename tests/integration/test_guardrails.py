"""Guardrails of a policy document: what reports and deadlines count, and what a trip does to the campaign."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from rollwave.domain.execution import WAVE_BITS, Place
from rollwave.domain.policy.document.text import Format
from rollwave.engine import guardrail_changes, guardrails, operations, stop
from rollwave.engine.policies import Edit, edit_policy
from rollwave.engine.retry import retry_failed
from rollwave.errors import Conflict, NotFound
from rollwave.settings import Settings
from rollwave.store import campaigns
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.segment_quarantine import SegmentChanges
from tests.engine import TENANT, Connection, connect, incoming_report, insert_campaign
from tests.in_process import ingest
from tests.integration.test_counters import waits_for_a_lock
from tests.integration.test_policy_in_force import follow
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@dataclass
class Sent:
    """A campaign under a document, whose devices are sent to as a claim does."""

    pool: Pool
    host: Connection
    id: int
    numbers: int = 0
    devices: dict[str, int] = field(default_factory=dict)

    @classmethod
    async def start(
        cls, pool: Pool, host: Connection, *rules: Mapping[str, object], segments: Sequence[Mapping[str, object]] = ()
    ) -> Sent:
        sent = cls(pool, host, await insert_campaign(host, 0))
        await follow(host, sent.id, {"guardrails": list(rules)} if rules else {})
        await host.execute(
            "UPDATE ota_campaigns SET pending = 0, downloading = 0, installing = 0, succeeded = 0, failed = 0,"
            " skipped = 0, placed_revision = policy_revision WHERE id = $1",
            sent.id,
        )
        for number, labels in enumerate(segments or [{}], start=1):
            await host.execute(
                "INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels)"
                " VALUES ($1, $2, $3, $4::text::jsonb)",
                *(TENANT, sent.id, number, json.dumps(labels)),
            )
        return sent

    async def send(self, devices: int, *, segment: int = 1, wave: int = 0) -> list[str]:
        """Send to new devices. Returns their names, in the order of their dispatch numbers."""
        numbers = range(self.numbers + 1, self.numbers + devices + 1)
        names = [f"dev-{number:06}" for number in numbers]
        await self.host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, sent_attempt,"
            " started_at, due_at, segment, position, dispatch_number)"
            " SELECT $1, $2, d.name, 'DOWNLOADING', 1, 1, now(), now() + interval '1 hour', $3, $4, d.number"
            " FROM unnest($5::text[], $6::int[]) AS d (name, number)",
            *(TENANT, self.id, segment, (wave + 1) << WAVE_BITS, names, list(numbers)),
        )
        await self.host.execute(
            "UPDATE ota_campaigns SET sent = sent + $2, downloading = downloading + $2 WHERE id = $1", self.id, devices
        )
        async with tenant_transaction(self.pool, TENANT, queues=True) as connection:
            campaign = await campaigns.lock(connection, TENANT, self.id)
            await guardrails.drawn(connection, campaign, [Place(segment, wave, number) for number in numbers])
        self.numbers += devices
        return names

    async def report(self, devices: Sequence[str], status: str, *, code: str | None = None) -> None:
        await ingest(self.pool, [incoming_report(each, self.id, status, code=code) for each in devices])

    async def status(self) -> str:
        found: str = await self.host.fetchval("SELECT status FROM ota_campaigns WHERE id = $1", self.id)
        return found

    async def tests(self) -> list[tuple[Any, ...]]:
        """Each test: guardrail, wave, labels, and devices finished and failed."""
        rows = await self.host.fetch(
            "SELECT guardrail, wave, labels::text, finished, failed FROM ota_campaign_tests ORDER BY number"
        )
        return [tuple(row) for row in rows]

    async def buckets(self) -> list[tuple[int, ...]]:
        rows = await self.host.fetch(
            "SELECT first, dispatched, finished, failed FROM ota_campaign_test_buckets ORDER BY test, first"
        )
        return [tuple(row) for row in rows]

    async def events(self, word: str) -> list[dict[str, Any]]:
        rows = await self.host.fetch(
            "SELECT detail::text FROM ota_campaign_history WHERE campaign_id = $1 AND event = $2 ORDER BY id",
            *(self.id, word),
        )
        return [json.loads(row[0]) for row in rows]

    async def quarantined(self) -> list[int]:
        rows = await self.host.fetch(
            "SELECT number FROM ota_campaign_segments WHERE quarantined_at IS NOT NULL ORDER BY number"
        )
        return [row[0] for row in rows]


SEQUENTIAL = {"name": "boots", "method": "sequential", "threshold": "5%"}
BY_REVISION = SEQUENTIAL | {"scope": "segment", "per": ["revision"], "action": "quarantine"}


async def test_a_document_without_guardrails_has_the_contracts(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host)
    first, *rest = await sent.send(20)
    await sent.report(rest[:18], "SUCCESS")
    await sent.report([first], "FAILED")
    assert await sent.status() == "RUNNING"
    assert await sent.tests() == [("failures", -1, "{}", 19, 1)]
    await sent.report(await sent.send(3), "FAILED", code="E_BOOT")
    assert await sent.status() == "ABORTED"
    [tripped] = await sent.events("guardrail_tripped")
    assert (tripped["failed"], tripped["of"], tripped["action"]) == (4, 22, "abort")
    assert tripped["devices"] == ["dev-000001", "dev-000021", "dev-000022", "dev-000023"]
    assert tripped["rule"]["threshold"] == 0.1
    [aborted] = await sent.events("aborted")
    assert aborted["reason"] == "guardrail failures: 4 of 22 finished devices failed (18.2%, over 10.0%)"
    stored = "SELECT evidence::text FROM ota_campaign_tests WHERE tripped_at IS NOT NULL"
    assert json.loads(await host.fetchval(stored)) == tripped
    assert await host.fetchval("SELECT DISTINCT error_code FROM ota_device_status WHERE error_code <> ''") == "E_BOOT"


async def test_a_document_may_have_no_guardrail(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 0)
    await follow(host, campaign, {"guardrails": []})
    sent = Sent(pool, host, campaign)
    await host.execute("UPDATE ota_campaigns SET pending = 0, downloading = 0, installing = 0, skipped = 0")
    await sent.report(await sent.send(20), "FAILED")
    assert (await sent.status(), await sent.tests()) == ("RUNNING", [])


async def test_classes_and_codes_decide_what_counts(pool: Pool, host: Connection) -> None:
    rule = {"threshold": "0%", "action": "pause"}
    sent = await Sent.start(
        *(pool, host),
        rule | {"name": "boots", "codes": ["E_BOOT"]},
        rule | {"name": "silent", "count": ["no_answer"]},
    )
    await sent.report(await sent.send(2), "FAILED", code="E_DISK")
    assert await sent.status() == "RUNNING"
    assert await sent.tests() == [("boots", -1, "{}", 2, 0), ("silent", -1, "{}", 2, 0)]
    await sent.report(await sent.send(1), "FAILED", code="E_BOOT")
    assert (await sent.status(), (await sent.tests())[0]) == ("PAUSED", ("boots", -1, "{}", 3, 1))


async def test_a_sequential_guardrail_counts_in_buckets_of_dispatches_and_trips(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, SEQUENTIAL)
    devices = await sent.send(30) + await sent.send(40)
    assert await sent.buckets() == [(1, 25, 0, 0), (26, 25, 0, 0), (51, 20, 0, 0)]
    await sent.report(devices[30:33], "SUCCESS")
    await sent.report(devices[24:26], "FAILED")
    assert await sent.buckets() == [(1, 25, 1, 1), (26, 25, 4, 1), (51, 20, 0, 0)]
    await sent.report(devices[:4], "FAILED")
    assert await sent.status() == "RUNNING", "five failures of 25 are not enough evidence"
    await sent.report(devices[4:7], "FAILED")
    assert await sent.status() == "ABORTED"
    [tripped] = await sent.events("guardrail_tripped")
    assert (tripped["failed"], tripped["of"], tripped["value"]) == (8, 25, 8 / 25)
    assert 0.05 < tripped["limit"] < 0.32
    assert tripped["alpha"] == 0.01


async def test_a_success_trips_a_guardrail_that_waited_for_its_minimum(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, SEQUENTIAL | {"min_finished": 12})
    devices = await sent.send(400)
    await sent.report(devices[:11], "FAILED")
    assert await sent.status() == "RUNNING"
    await sent.report(devices[390:391], "SUCCESS")
    assert await sent.status() == "ABORTED"
    [tripped] = await sent.events("guardrail_tripped")
    assert (tripped["failed"], tripped["of"]) == (11, 25), "the first of many buckets has the evidence"


async def test_one_hardware_revision_is_quarantined_and_the_rest_goes_on(pool: Pool, host: Connection) -> None:
    labels = [{"revision": "B", "zone": "a"}, {"revision": "C", "zone": "a"}, {"revision": "C", "zone": "b"}]
    sent = await Sent.start(pool, host, BY_REVISION, segments=[*labels, {"revision": None, "zone": "a"}])
    good, bad, other = await sent.send(40), await sent.send(40, segment=2), await sent.send(10, segment=4)
    more = await sent.send(30, segment=3)
    await sent.report([*good, *other], "SUCCESS")
    await sent.report([*bad[:15], *more[:2]], "FAILED")
    assert (await sent.status(), await sent.quarantined()) == ("RUNNING", [2, 3])
    [tripped] = await sent.events("guardrail_tripped")
    assert tripped["labels"] == {"revision": "C"}
    assert tripped["alpha"] == pytest.approx(0.01 / 3), "three groups were known when the test began"
    assert [each["segment"] for each in await sent.events("segment_quarantined")] == [2, 3]
    reason = await host.fetchval("SELECT quarantined_because FROM ota_campaign_segments WHERE number = 3")
    assert reason.startswith("guardrail boots: ")
    await sent.report(bad[15:], "FAILED")
    assert len(await sent.events("guardrail_tripped")) == 1


async def test_a_released_segment_begins_a_new_test(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, BY_REVISION, segments=[{"revision": "B"}, {"revision": "C"}])
    old = await sent.send(60, segment=2)
    await sent.report(old[:20], "FAILED")
    assert await sent.quarantined() == [2]
    with pytest.raises(NotFound, match="has no segment 9"):
        await operations.release_segment(pool, Settings(), TENANT, sent.id, 9, actor="key")
    for _ in range(2):
        released = await operations.release_segment(pool, Settings(), TENANT, sent.id, 2, actor="key", reason="fixed")
        assert released == "RUNNING"
    assert await sent.events("segment_released") == [{"segment": 2, "reason": "fixed"}]
    assert (await sent.quarantined(), await sent.buckets()) == ([], [(21, 25, 0, 0), (46, 15, 0, 0)])
    await sent.report((await sent.send(15, segment=2))[:5], "SUCCESS")
    assert await sent.buckets() == [(21, 25, 0, 0), (46, 25, 5, 0), (71, 5, 0, 0)]
    await sent.report(old[20:32], "FAILED")
    assert await sent.quarantined() == [2], "devices that were in flight at the release are of the new test"
    assert (await sent.events("guardrail_tripped"))[-1]["devices"] == old[20:32]
    await operations.abort_campaign(pool, TENANT, sent.id, actor="key")
    with pytest.raises(Conflict, match="it is ABORTED"):
        await operations.release_segment(pool, Settings(), TENANT, sent.id, 2, actor="key")


async def test_start_after_a_guardrails_pause_begins_a_new_test(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, {"name": "failures", "threshold": "10%", "action": "pause"})
    devices = await sent.send(10)
    await sent.report(devices[:2], "FAILED")
    assert await sent.status() == "PAUSED"
    await operations.start_campaign(pool, TENANT, sent.id, actor="key")
    assert await sent.status() == "RUNNING"
    await sent.report(devices[2:], "FAILED")
    assert await sent.status() == "PAUSED", "devices that were in flight at the start are of the new test"
    assert await sent.tests() == [("failures", -1, "{}", 8, 8)]
    assert (await sent.events("guardrail_tripped"))[-1]["devices"] == devices[2:]


async def test_a_device_that_failed_before_a_test_began_is_not_of_it(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, {"name": "failures", "threshold": "10%", "action": "pause"})
    devices = await sent.send(4)
    await sent.report(devices[:2], "FAILED")
    await operations.start_campaign(pool, TENANT, sent.id, actor="key")
    await retry_failed(pool, TENANT, sent.id, actor="key")
    await host.execute("UPDATE ota_device_status SET attempt = 2, sent_attempt = 2 WHERE failed_before IS NOT NULL")
    await sent.report([*devices[:1], *devices[2:3]], "SUCCESS")
    await sent.report(devices[1:2], "FAILED", code="E_OTHER")
    assert await sent.tests() == [("failures", -1, "{}", 1, 0)]


async def test_a_guardrail_that_pauses_a_paused_campaign_leaves_its_reason(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, {"name": "failures", "threshold": "10%", "action": "pause"})
    devices = await sent.send(10)
    await operations.pause_campaign(pool, TENANT, sent.id, actor="key")
    await sent.report(devices[:2], "FAILED")
    assert await sent.status() == "PAUSED"
    reason = await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", sent.id)
    assert reason == "guardrail failures: 2 of 2 finished devices failed (100.0%, over 10.0%)"


async def test_the_numbers_of_a_wave_start_anew_with_it(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, {"name": "failures", "threshold": "10%", "scope": "wave"})
    await sent.report(await sent.send(20), "SUCCESS")
    await sent.report(await sent.send(8, wave=1), "SUCCESS")
    await sent.report(await sent.send(1, wave=1), "FAILED")
    assert await sent.status() == "ABORTED"
    assert await sent.tests() == [("failures", 0, "{}", 20, 0), ("failures", 1, "{}", 9, 1)]


async def test_at_a_gate_a_ratio_needs_no_minimum(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, {"name": "failures", "threshold": "10%", "min_finished": 20})
    await sent.report(await sent.send(3), "FAILED")
    assert await sent.status() == "RUNNING"
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        campaign = await campaigns.lock(connection, TENANT, sent.id)
        stopped = await stop.judge(connection, TENANT, stop.counters_of(campaign), at_gate=True)
    assert stopped is not None
    assert await sent.status() == "ABORTED"


async def test_rows_that_other_sql_changed_count_when_counters_are_repaired(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host)
    await sent.report(await sent.send(20), "SUCCESS")
    await host.execute("UPDATE ota_campaigns SET failed = 5")  # as a repair does
    async with tenant_transaction(pool, TENANT, queues=True) as connection:
        campaign = await campaigns.lock(connection, TENANT, sent.id)
        assert await stop.judge(connection, TENANT, stop.counters_of(campaign)) is not None
    assert (await sent.status(), await sent.tests()) == ("ABORTED", [("failures", -1, "{}", 25, 5)])


async def test_a_device_that_an_operator_retries_is_one_trial(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(
        *(pool, host),
        {"name": "all", "threshold": "50%", "min_finished": 9},
        {"name": "boots", "threshold": "50%", "min_finished": 9, "codes": ["E_BOOT"]},
    )
    devices = await sent.send(4)
    await sent.report(devices[:3], "FAILED", code="E_DISK")
    assert (await retry_failed(pool, TENANT, sent.id, actor="key")).devices == 3
    await host.execute("UPDATE ota_device_status SET attempt = 2, sent_attempt = 2")  # as the next claim does
    await sent.report(devices[:1], "SUCCESS")
    await sent.report(devices[1:2], "FAILED", code="E_BOOT")
    await sent.report(devices[2:3], "FAILED", code="E_DISK")
    assert await sent.tests() == [("all", -1, "{}", 3, 3), ("boots", -1, "{}", 3, 1)]


async def test_an_edit_begins_the_tests_of_changed_guardrails_anew(pool: Pool, host: Connection) -> None:
    kept, changed = {"name": "kept", "threshold": "90%"}, BY_REVISION | {"name": "changed"}
    gone = {"name": "gone", "threshold": "90%"}
    sent = await Sent.start(pool, host, kept, changed, gone, segments=[{"revision": "C"}])
    old = await sent.send(30)
    await sent.report(old[:2], "SUCCESS")
    document = {"guardrails": [changed | {"alpha": 0.05}, kept]}
    edit = Edit(json.dumps(document).encode(), Format.JSON)
    await edit_policy(pool, Settings(), TENANT, sent.id, edit, actor="key")
    assert [each[:2] + each[3:] for each in await sent.tests()] == [("kept", -1, 2, 0), ("changed", -1, 0, 0)]
    await sent.report(old[20:22], "SUCCESS")
    assert await sent.buckets() == [(3, 25, 2, 0), (28, 3, 0, 0)], "it covers the devices in flight at the edit"
    await sent.report(old[2:14], "FAILED")
    assert await sent.quarantined() == [1]


async def test_a_report_that_waits_for_an_edit_is_judged_by_the_new_document(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, {"name": "old", "threshold": "100%"})
    [device] = await sent.send(1)
    async with asyncio.TaskGroup() as group, host.transaction():
        await follow(host, sent.id, {"guardrails": [{"name": "new", "threshold": "10%"}]}, revision=2)
        group.create_task(sent.report([device], "FAILED"))
        await eventually(lambda: waits_for_a_lock(host), what="the report waits for the campaign's row")
    assert await sent.tests() == [("new", -1, "{}", 1, 1)]
    assert await sent.status() == "ABORTED"


async def test_a_new_guardrail_of_an_edit_covers_the_devices_in_flight(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, {"name": "kept", "threshold": "90%", "min_finished": 50})
    old = await sent.send(40)
    await sent.report(old[:3], "FAILED")
    document = {"guardrails": [SEQUENTIAL, {"name": "by-wave", "scope": "wave", "threshold": "50%"}]}
    edit = Edit(json.dumps(document).encode(), Format.JSON)
    await edit_policy(pool, Settings(), TENANT, sent.id, edit, actor="key")
    assert await sent.buckets() == [(4, 25, 0, 0), (29, 12, 0, 0)]
    await sent.report(old[3:15], "FAILED")
    assert await sent.status() == "ABORTED"
    assert (await sent.tests())[-1] == ("by-wave", 0, "{}", 12, 12)


async def test_devices_under_quarantine_stay_there_in_the_new_segments_of_an_edit(pool: Pool, host: Connection) -> None:
    sent = await Sent.start(pool, host, BY_REVISION, segments=[{"revision": "B"}, {"revision": "C", "zone": "b"}])
    await sent.report((await sent.send(30, segment=2))[:12], "FAILED")
    for number, revision in ((3, "B"), (4, "C")):
        await host.execute(
            "INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels)"
            " VALUES ($1, $2, $3, jsonb_build_object('revision', $4::text, 'zone', 'a'))",
            *(TENANT, sent.id, number, revision),
        )
    async with tenant_transaction(pool, TENANT) as connection:
        campaign = await campaigns.lock(connection, TENANT, sent.id)
        await guardrail_changes.keep_quarantine(connection, campaign, SegmentChanges([3, 4]))
    assert await sent.quarantined() == [2, 4]
    assert (await sent.events("segment_quarantined"))[-1]["segment"] == 4
