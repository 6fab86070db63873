"""Malformed, hostile and unusual input: each message is handled, and the message after it is processed."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import (
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    device_row,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.raw_mqtt import RawPublisher, Refused
from tests.servers import Mosquitto
from tests.support import environment, eventually, free_port, psql

_numbers = itertools.count(1)
CAMPAIGN = 7


@dataclass
class ListeningWorker:
    """A worker that listens, a PAUSED campaign with devices in progress, and a publisher."""

    database: str
    publisher: RawPublisher
    port: int

    def sql(self, statement: str) -> str:
        return psql(self.database, statement)

    def device(self, status: str, progress: int = 10) -> str:
        """Insert a device of the campaign with this status. Returns its name."""
        name = f"dev-{next(_numbers)}"
        self.sql(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, progress_pct)"
            f" VALUES ('north', {CAMPAIGN}, '{name}', '{status}', {progress})"
        )
        return name

    def row(self, device: str) -> str:
        return self.sql(
            "SELECT status, progress_pct, error_message FROM ota_device_status"
            f" WHERE tenant_id = 'north' AND device_id = '{device}'"
        )

    def report(self, device: str, payload: bytes, *, retain: bool = False) -> None:
        self.publisher.publish(f"tenant/north/device/{device}/ota/status".encode(), payload, retain=retain)

    def messages_processed(self) -> int:
        """The number of messages that the worker has processed, whatever their outcome."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return int(
            sum(float(publisher.split()[-1]) for publisher in lines if publisher.startswith("rollwave_reports_total{"))
        )

    async def report_valid_and_wait(self) -> None:
        """Publish a valid report and wait until it is applied: earlier messages have been processed then."""
        device = self.device("DOWNLOADING")
        self.report(device, body("SUCCESS"))
        await eventually(lambda: self.row(device) == "SUCCESS|100|", what="the valid report behind it is applied")


def start_worker(database: str, broker: EmbeddedBroker, port: int) -> subprocess.Popen[bytes]:
    env = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url, "LOG_LEVEL": "ERROR"}
    env |= {"OTA_TICK_INTERVAL": "0.5", "ROLLWAVE_RECONCILE_INTERVAL": "1"}
    return subprocess.Popen(
        [Path(sys.executable).with_name("rollwave"), "worker", "--port", str(port)],
        env=environment(**env),
        stdin=subprocess.DEVNULL,
    )


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def database_and_broker(postgres_url: str, template: str) -> Iterator[tuple[str, EmbeddedBroker]]:
    """A database with a campaign in it, and a broker, for the whole module."""
    psql(postgres_url, f"CREATE DATABASE bad_input TEMPLATE {template}")
    database = postgres_url.replace("@/postgres?", "@/bad_input?")
    psql(
        database,
        f"""
        INSERT INTO tenants VALUES ('north'), ('south');
        INSERT INTO firmware_versions (id, tenant_id, version, file_url)
            VALUES (1, 'north', '1.0', 'https://a.invalid/1'), (1, 'south', '1.0', 'https://a.invalid/1');
        INSERT INTO ota_campaigns (id, tenant_id, name, firmware_version_id, status, abort_threshold)
            VALUES ({CAMPAIGN}, 'north', 'ours', 1, 'PAUSED', 1), (8, 'south', 'theirs', 1, 'PAUSED', 1),
                   (9, 'north', 'another', 1, 'PAUSED', 1);
        INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)
            VALUES ('north', {CAMPAIGN}, 'keeps-it-open'), ('south', 8, 'dev-1');
        """,
    )
    with EmbeddedBroker() as broker:
        yield database, broker
    psql(postgres_url, "DROP DATABASE bad_input WITH (FORCE)")


@pytest.fixture(scope="module")
def serving(database_and_broker: tuple[str, EmbeddedBroker]) -> Iterator[int]:
    """Run a worker, and return its port."""
    database, broker = database_and_broker
    port = free_port()
    process = start_worker(database, broker, port)
    try:
        yield port
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
async def listening(database_and_broker: tuple[str, EmbeddedBroker], serving: int) -> AsyncIterator[ListeningWorker]:
    database, broker = database_and_broker
    await eventually(lambda: is_ready(serving), timeout=20, what="listening")
    with RawPublisher(broker.port) as publisher:
        yield ListeningWorker(database, publisher, serving)


def body(status: object, campaign: object = CAMPAIGN, **more: object) -> bytes:
    return json.dumps({"campaign_id": campaign, "status": status} | more).encode()


def text(campaign: str = str(CAMPAIGN), status: str = '"SUCCESS"', more: str = "") -> bytes:
    """A payload that ``json.dumps`` would not produce."""
    return f'{{"campaign_id": {campaign}, "status": {status}{more}}}'.encode()


LONG = "9" * 5000

TOPICS = {
    "empty tenant": "tenant//device/{device}/ota/status",
    "empty device": "tenant/north/device//ota/status",
    "extra level": "tenant/north/device/{device}/extra/ota/status",
    "trailing level": "tenant/north/device/{device}/ota/status/",
    "wrong case": "TENANT/north/device/{device}/ota/status",
    "newline": "tenant/north/device/{device}\n/ota/status",
    "escape": "tenant/north/device/\x1b[2J/ota/status",
    "C1": "tenant/north/device/\x9b2J/ota/status",
    "a non-character": "tenant/north/device/{device}\uffff/ota/status",
    "a non-character of a further plane": "tenant/north/device/{device}\U0001fffe/ota/status",
    "a dollar before": "tenant/north/device/${device}/ota/status",
    "a blank before": "tenant/ north/device/{device}/ota/status",
    "a blank behind": "tenant/north/device/{device} /ota/status",
    "a zero-width blank behind": "tenant/north/device/{device}\u200b/ota/status",
    "unknown tenant of dots": "tenant/../device/{device}/ota/status",
    "unknown device of dots": "tenant/north/device/../ota/status",
    "unknown emoji": "tenant/north/device/\U0001f600/ota/status",
    "unknown percent-encoded slash": "tenant/north/device/a%2F{device}/ota/status",
    "quote": "tenant/north'; DROP TABLE tenants; --/device/{device}/ota/status",
    "129 characters": f"tenant/north/device/{'x' * 129}/ota/status",
    "64 KB": f"tenant/north/device/{'x' * 65000}/ota/status",
    "unknown tenant": "tenant/west/device/{device}/ota/status",
    "unknown device": "tenant/north/device/nobody/ota/status",
    "the command topic": "tenant/north/device/{device}/ota",
    "not UTF-8": "tenant/north/device/{device}\udcff/ota/status",
}


@pytest.mark.parametrize("name", TOPICS)
async def test_invalid_topics_change_nothing(listening: ListeningWorker, name: str) -> None:
    device = listening.device("DOWNLOADING")
    before = listening.sql("SELECT count(*), max(id) FROM ota_device_status")
    topic = TOPICS[name].format(device=device).encode("utf-8", "surrogateescape")
    with suppress(Refused):  # A broker may refuse to carry it.
        listening.publisher.publish(topic, body("SUCCESS"))
    assert listening.sql("SELECT count(*), max(id) FROM ota_device_status") == before
    await listening.report_valid_and_wait()
    assert listening.row(device) == "DOWNLOADING|10|"


REJECTED = {
    "null": b"null",
    "list": b"[]",
    "number": b"5",
    "string": b'"SUCCESS"',
    "truncated": body("SUCCESS")[:-3],
    "UTF-16": body("SUCCESS").decode().encode("utf-16"),
    "invalid UTF-8": text(more=', "error": "').replace(b"}", b'\xff"}'),
    "byte order mark": b"\xef\xbb\xbf" + body("SUCCESS"),
    "two documents": body("SUCCESS") * 2,
    "deeply nested": b"[" * 60_000,
    "deeply nested value": text(more=', "error": ' + "[" * 60_000 + "]" * 5_000),
    "200,000 nested": b"[" * 200_000,
    "over 64 KB": body("SUCCESS", error="x" * 65_536),
    "1 MB": b"\x00" * 1_000_000,
    "duplicate keys": text(more=', "status": "FAILED"'),
    "duplicate keys within": text(more=', "x": {"a": 1, "a": 2}'),
    "no campaign": b'{"status": "SUCCESS"}',
    "campaign true": text("true"),
    "campaign 1.9": text("1.9"),
    "campaign 7.0": text("7.0"),
    "campaign 0": text("0"),
    "campaign -7": text("-7"),
    "campaign null": text("null"),
    "campaign in a string": text('"7"'),
    "campaign of 5,000 digits": text(LONG),
    "campaign past bigint": text(str(2**63)),
    "no status": b'{"campaign_id": 7}',
    "status null": text(status="null"),
    "status list": text(status='["SUCCESS"]'),
    "status PENDING": text(status='"PENDING"'),
    "status SKIPPED": text(status='"SKIPPED"'),
    "status in long s": body("\u017fucce\u017f\u017f"),
    "status with a space": text(status='"SUCCESS "'),
    "status unknown": text(status='"DONE"'),
    "progress NaN": text(more=', "progress": NaN'),
    "progress Infinity": text(more=', "progress": -Infinity'),
}


@pytest.mark.parametrize("name", REJECTED)
async def test_invalid_payloads_are_counted_and_sampled(listening: ListeningWorker, name: str) -> None:
    device = listening.device("DOWNLOADING")
    before = listening.messages_processed()
    listening.report(device, REJECTED[name])
    await listening.report_valid_and_wait()
    assert listening.row(device) == "DOWNLOADING|10|"
    await eventually(lambda: listening.messages_processed() == before + 2, what="each message is counted once")
    sample = listening.sql(
        f"SELECT reason <> '', octet_length(payload) FROM ota_quarantine WHERE device_id = '{device}'"
    )
    assert sample == f"t|{min(4096, len(REJECTED[name]))}"


IGNORED = {
    "empty": ("DOWNLOADING", b""),
    "another tenant's campaign": ("DOWNLOADING", body("SUCCESS", 8)),
    "a campaign without this device": ("DOWNLOADING", body("SUCCESS", 9)),
    "a campaign that is none": ("DOWNLOADING", body("SUCCESS", 4_000_000_000)),
    "a stale attempt": ("DOWNLOADING", body("SUCCESS", attempt=7)),
    "a stale attempt in a string": ("DOWNLOADING", body("SUCCESS", attempt="7")),
    "before dispatch": ("PENDING", body("SUCCESS")),
    "DOWNLOADING after INSTALLING": ("INSTALLING", body("DOWNLOADING", progress=99)),
    "duplicate terminal": ("SUCCESS", body("SUCCESS")),
    "FAILED after SUCCESS": ("SUCCESS", body("FAILED", error="late")),
    "SUCCESS after FAILED": ("FAILED", body("SUCCESS")),
    "SUCCESS after SKIPPED": ("SKIPPED", body("SUCCESS")),
    "INSTALLING after FAILED": ("FAILED", body("INSTALLING")),
    "less progress": ("DOWNLOADING", body("DOWNLOADING", progress=5)),
}


@pytest.mark.parametrize("name", IGNORED)
async def test_reports_that_change_nothing_are_counted_by_outcome(listening: ListeningWorker, name: str) -> None:
    status, payload = IGNORED[name]
    device = listening.device(status)
    before, counted = listening.row(device), listening.messages_processed()
    listening.report(device, payload)
    await listening.report_valid_and_wait()
    assert listening.row(device) == before
    await eventually(lambda: listening.messages_processed() == counted + 2, what="each message is counted once")
    assert listening.sql(f"SELECT count(*) FROM ota_quarantine WHERE device_id = '{device}'") == "0"


SANITISED: dict[str, tuple[bytes, str]] = {
    "unknown keys": (body("INSTALLING", rssi=-70, nested={"a": [1]}), "INSTALLING|10|"),
    "lower case": (body("installing"), "INSTALLING|10|"),
    "progress null": (body("INSTALLING", progress=None), "INSTALLING|10|"),
    "progress in words": (body("INSTALLING", progress="75%"), "INSTALLING|10|"),
    "progress in a string": (body("INSTALLING", progress="75"), "INSTALLING|75|"),
    "attempt 0": (body("SUCCESS", attempt=0), "SUCCESS|100|"),
    "attempt a list": (body("SUCCESS", attempt=[1]), "SUCCESS|100|"),
    "code and version": (body("FAILED", code="NO_SPACE", version="2.1.0", error="full"), "FAILED|10|full"),
    "code and version of other types": (body("FAILED", code=[7], version={"a": 1}, error="full"), "FAILED|10|full"),
    "progress list": (body("INSTALLING", progress=[75]), "INSTALLING|10|"),
    "progress -1": (body("INSTALLING", progress=-1), "INSTALLING|0|"),
    "progress 101": (body("INSTALLING", progress=101), "INSTALLING|100|"),
    "progress 74.6": (body("INSTALLING", progress=74.6), "INSTALLING|74|"),
    "progress 1e400": (text(status='"INSTALLING"', more=', "progress": 1e400'), "INSTALLING|100|"),
    "progress of 5,000 digits": (text(status='"INSTALLING"', more=f', "progress": {LONG}'), "INSTALLING|100|"),
    "success at 10": (body("SUCCESS", progress=10), "SUCCESS|100|"),
    "error an object": (body("FAILED", error={"code": 7, "at": "flash"}), 'FAILED|10|{"code":7,"at":"flash"}'),
    "error a list": (body("FAILED", error=[1, "ä"]), 'FAILED|10|[1,"ä"]'),
    "error a number": (body("FAILED", error=7), "FAILED|10|7"),
    "error null": (body("FAILED", error=None), "FAILED|10|"),
    "error with NUL": (body("FAILED", error="a\x00b"), "FAILED|10|ab"),
    "error with 2,000 NUL before": (body("FAILED", error="\x00" * 2000 + "full"), "FAILED|10|full"),
    "error with NUL within": (body("FAILED", error={"a": "b\x00c"}), 'FAILED|10|{"a":"b\\u0000c"}'),
    "error with a lone surrogate": (body("FAILED", error="a\ud800b"), "FAILED|10|a?b"),
    "error of 60 KB": (body("FAILED", error="x" * 60_000), f"FAILED|10|{'x' * 1024}"),
    "error of 60 KB in Greek": (
        json.dumps(
            {"campaign_id": CAMPAIGN, "status": "FAILED", "error": "\u03b1" * 30_000}, ensure_ascii=False
        ).encode(),
        "FAILED|10|" + "\u03b1" * 512,
    ),
    "error with markup": (body("FAILED", error="<script>alert(1)</script>"), "FAILED|10|<script>alert(1)</script>"),
    "error with an escape": (body("FAILED", error="\x1b[2Jgone"), "FAILED|10|\x1b[2Jgone"),
    "white space around": (b" \r\n" + body("INSTALLING") + b"\n", "INSTALLING|10|"),
}


@pytest.mark.parametrize("name", SANITISED)
async def test_readable_parts_of_a_report_are_applied_and_the_rest_sanitised(
    listening: ListeningWorker, name: str
) -> None:
    payload, expected = SANITISED[name]
    device = listening.device("DOWNLOADING")
    listening.report(device, payload)
    await listening.report_valid_and_wait()
    assert listening.row(device) == expected
    assert listening.sql(f"SELECT count(*) FROM ota_quarantine WHERE device_id = '{device}'") == "0"


@pytest.mark.parametrize("attempt", [1, "1", 1.0, " 1.0"])
async def test_an_attempt_number_is_recognised_in_any_notation(listening: ListeningWorker, attempt: object) -> None:
    device = listening.device("DOWNLOADING")
    listening.sql(f"UPDATE ota_device_status SET attempt = 1, sent_attempt = 1 WHERE device_id = '{device}'")
    listening.report(device, body("SUCCESS", attempt=attempt))
    await listening.report_valid_and_wait()
    assert listening.row(device) == "SUCCESS|100|"


async def test_a_device_that_floods_delays_no_other_and_its_final_report_counts(listening: ListeningWorker) -> None:
    over_qos = listening.device("DOWNLOADING", 0)
    for number in range(400):
        listening.report(over_qos, body("DOWNLOADING", progress=number % 100))
    listening.report(over_qos, body("SUCCESS"))
    await listening.report_valid_and_wait()
    assert listening.row(over_qos) == "SUCCESS|100|"


async def test_the_number_of_quarantined_samples_is_limited(listening: ListeningWorker) -> None:
    device = listening.device("DOWNLOADING")
    for _ in range(300):
        listening.report(device, b"{")
    await listening.report_valid_and_wait()
    assert int(listening.sql("SELECT count(*) FROM ota_quarantine WHERE tenant_id = 'north'")) <= 1000
    assert int(listening.sql("SELECT max(octet_length(payload)) FROM ota_quarantine")) <= 4096


async def test_counters_equal_the_rows_after_bad_input(listening: ListeningWorker) -> None:
    await listening.report_valid_and_wait()

    def agree() -> bool:
        return listening.sql("SELECT succeeded, failed FROM ota_campaigns WHERE id = 7") == listening.sql(
            "SELECT count(*) FILTER (WHERE status = 'SUCCESS'), count(*) FILTER (WHERE status = 'FAILED')"
            " FROM ota_device_status WHERE campaign_id = 7"
        )

    await eventually(agree, timeout=40, what="rows set to SUCCESS by SQL are reconciled")
    assert listening.sql("SELECT status FROM ota_campaigns WHERE id = 7") == "PAUSED"


UNSENDABLE = ["", "a/b", "+", "#", "a+b", "tab\there", "line\n", "bell\x07", "\x9b", "\uffff", "\U0010fffe", "x" * 129]
UNSENDABLE += ["$a", " a", "a ", "a\u3000", "\ufeffa"]


async def test_devices_that_cannot_be_addressed_are_skipped_before_anything_is_published(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    names = [*UNSENDABLE, "good-1", "good-2", "good-3"]
    async with (
        connect(database) as host,
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(database, mosquitto.url, tmp_path / "log", OTA_TICK_INTERVAL="60") as running,
    ):
        campaign = await insert_campaign(host, names, rollout_rate=3, abort_threshold=0.0)
        await wait_until_ended(host, campaign)
        assert await campaign_row(host, campaign) == ("COMPLETED", 3, 0)
        assert await breakdown(host, campaign) == {"SUCCESS": 3, "SKIPPED": len(UNSENDABLE)}
        for name in UNSENDABLE:
            row = await device_row(host, campaign, name)
            assert "topic" in row["error_message"]
            assert (row["started_at"], row["completed_at"] is None) == (None, False)
        assert sorted(command.device for command in fleet.commands) == ["good-1", "good-2", "good-3"]
        assert not events(running, "ota_mqtt_publish_failed")


BAD_RULES: dict[str, dict[str, Any]] = {
    "threshold NaN": {"abort_threshold": float("nan")},
    "threshold 2": {"abort_threshold": 2.0},
    "threshold -1": {"abort_threshold": -1.0},
    "threshold infinite": {"abort_threshold": float("inf")},
    "rate 0": {"rollout_rate": 0},
    "rate -5": {"rollout_rate": -5},
    "strategy unknown": {"rollout_strategy": "big bang"},
    "strategy empty": {"rollout_strategy": ""},
    "canary of nothing": {"rollout_strategy": "canary", "canary_percent": 0.0},
    "canary NaN": {"rollout_strategy": "canary", "canary_percent": float("nan")},
    "minimum 0": {"abort_min_completed": 0},
    "minimum NULL": {"abort_min_completed": None},
    "cap 0": {"max_in_flight": 0},
    "progress timeout 0": {"progress_timeout": 0.0},
    "progress timeout NaN": {"progress_timeout": float("nan")},
    "attempts 0": {"max_attempts": 0},
}

GOOD_RULES = """
    UPDATE ota_campaigns SET status = 'RUNNING', abort_threshold = 0.1, rollout_rate = 10, rollout_strategy = 'linear',
        canary_percent = 5, abort_min_completed = 1, max_in_flight = NULL, progress_timeout = NULL, max_attempts = NULL
    WHERE status = 'PAUSED'
"""


async def test_rules_that_cannot_be_read_pause_the_campaign(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        connect(database) as host,
        devices(broker.url, always_succeeds) as fleet,
        worker(database, broker.url, tmp_path / "log") as running,
    ):
        held = {name: await insert_campaign(host, 2, **rule) for name, rule in BAD_RULES.items()}
        held["tenant"] = await insert_campaign(host, 2, tenant="no/topic")
        fine = await insert_campaign(host, 2)
        await wait_until_ended(host, fine)

        async def all_held() -> bool:
            paused: int = await host.fetchval("SELECT count(*) FROM ota_campaigns WHERE status = 'PAUSED'")
            return paused == len(held)

        await eventually(all_held, what="held")
        for name, campaign in held.items():
            reason = await host.fetchval("SELECT status_reason FROM ota_campaigns WHERE id = $1", campaign)
            assert reason, name
            assert re.search(r"abort|rate|strateg|canary|in_flight|timeout|attempts|tenant", reason), (name, reason)
            assert fleet.commands_of(campaign) == []
        assert {event["campaign_id"] for event in events(running, "ota_campaign_held")} == set(held.values())
        assert not events(running, "ota_campaign_error")

        await host.execute(GOOD_RULES + " AND tenant_id = 'north'")
        for name, campaign in held.items():
            if name != "tenant":
                await wait_until_ended(host, campaign)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ota_campaigns SET abort_threshold = 'NaN'",
        """
            INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)
            SELECT tenant_id, id, 1, '{"wavs": []}' FROM ota_campaigns;
            UPDATE ota_campaigns SET policy_revision = 1
        """,
    ],
    ids=["column", "document"],
)
async def test_a_rule_that_becomes_unreadable_pauses_the_running_campaign(
    database: str, broker: EmbeddedBroker, tmp_path: Path, change: str
) -> None:
    async with (
        connect(database) as host,
        devices(broker.url) as fleet,
        worker(database, broker.url, tmp_path / "log", OTA_PROGRESS_TIMEOUT="1"),
    ):
        campaign = await insert_campaign(host, 20, rollout_rate=4)
        await eventually(lambda: len(fleet.commands) >= 4, what="some commands are sent")
        await host.execute(change)

        async def is_now(*row: object) -> bool:
            return (await campaign_row(host, campaign)) == row

        await eventually(lambda: is_now("PAUSED", 0, 0), what="held")
        first = fleet.commands[0].device
        fleet.report(first, campaign, "FAILED")
        await fleet.wait_until_delivered()
        await eventually(lambda: is_now("PAUSED", 0, 1), what="reports are still processed")
        await host.execute("UPDATE ota_campaigns SET status = 'ABORTED'")
        await wait_until_ended(host, campaign, "ABORTED")
