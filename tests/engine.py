"""The engine as an operator runs it, campaigns as a host inserts them, and devices with chosen answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import asyncpg

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine import identity
from rollwave.engine.dispatch.claim import Claims
from rollwave.engine.dispatch.isolate import PROBE
from rollwave.engine.dispatch.pipeline import Dispatch
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.upkeep.counters import Counters
from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store import executions, listeners, views
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection as Inside
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claim
from tests.support import Running, end, eventually, rollwave_running

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TENANT = "north"
COUNTED = ("PENDING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED", "SKIPPED")


@asynccontextmanager
async def worker(
    database: str,
    broker_url: str,
    log: Path,
    *arguments: str,
    logs: str = "ota_status_listener_subscribed",
    within: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[Running]:
    """Run ``rollwave worker`` with a short tick. Yields after it ``logs`` this event."""
    env = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker_url, "OTA_TICK_INTERVAL": "0.2", **settings}
    async with rollwave_running("worker", *arguments, log=log, env=env, within=within) as running:
        await eventually(lambda: logs in running.output(), timeout=20, what=f"{logs} in {log}")
        yield running


def events(running: Running, name: str) -> list[dict[str, Any]]:
    """The events that it has logged under this name."""
    lines = [line for line in running.output().splitlines() if f'"{name}"' in line]
    return [event for event in map(json.loads, lines) if event["event"] == name]


TICKS = "ota_tick_start"
"""The log event of each look at the campaigns."""


async def wait_for_ticks(running: Running, number: int = 5) -> None:
    """Wait until a worker has looked at its campaigns ``number`` more times."""
    before = len(events(running, TICKS))
    await eventually(lambda: len(events(running, TICKS)) > before + number, timeout=20, what="ticks")


@asynccontextmanager
async def connect(database: str) -> AsyncIterator[Connection]:
    """A host's own connection: without a role and without a tenant."""
    connection: Connection = await asyncpg.connect(database, server_settings={"application_name": "host"})
    try:
        yield connection
    finally:
        await connection.close()


UNUSED_VERSION = (
    "'2.1.0' || COALESCE('+' || NULLIF((SELECT count(*) FROM firmware_versions WHERE tenant_id = $1::text), 0), '')"
)
"""SQL for a version that the tenant $1 does not have yet: 2.1.0, then 2.1.0+1 and so on."""


async def insert_campaign(
    connection: Connection, devices: int | Sequence[str], *, tenant: str = TENANT, **columns: object
) -> int:
    """Insert a RUNNING campaign in one transaction, as a host does.

    ``devices``: their number (``dev-1``, ``dev-2`` …) or their names.
    """
    names = [f"dev-{number}" for number in range(1, devices + 1)] if isinstance(devices, int) else devices
    async with connection.transaction():
        await connection.execute("INSERT INTO tenants (tenant_id) VALUES ($1) ON CONFLICT DO NOTHING", tenant)
        firmware = await connection.fetchval(
            "INSERT INTO firmware_versions (tenant_id, version, file_url)"
            f" SELECT $1::text, {UNUSED_VERSION}, 'https://a.invalid/f' RETURNING id",
            tenant,
        )
        row: dict[str, object] = {"name": "spring", "status": "RUNNING", "rollout_rate": 10} | columns
        campaign: int = await connection.fetchval(
            f"INSERT INTO ota_campaigns (tenant_id, firmware_version_id, {', '.join(row)})"
            f" VALUES ($1, $2, {', '.join(f'${number}' for number in range(3, 3 + len(row)))}) RETURNING id",
            tenant,
            firmware,
            *row.values(),
        )
        await connection.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)"
            " SELECT $1, $2, name FROM unnest($3::text[]) WITH ORDINALITY AS t (name, number) ORDER BY number",
            tenant,
            campaign,
            list(names),
        )
    return campaign


def campaign_ref(campaign: int, tenant: str = TENANT) -> CampaignRef:
    """A reference to a RUNNING campaign, as the engine uses it."""
    return CampaignRef(TenantId(tenant), CampaignId(campaign), CampaignStatus.RUNNING)


async def claim_commands(connection: Inside, campaign: Campaign, *, tokens: int, fresh: int) -> Claim:
    """Claim up to this many commands in the open interval, with a lease of a minute."""
    return await executions.claim(
        connection,
        campaign,
        tokens=tokens,
        fresh=fresh,
        lease=60,
        device_timeout=600,
        opens_interval=False,
        command="{}",
    )


def make_claims(pool: Pool, settings: Settings, *, steps: int = 1) -> Claims:
    """The part that claims devices, made as a worker makes it."""
    return Claims(pool, settings, Counters(pool, settings).count, steps=steps)


def make_dispatch(pool: Pool, command_session: CommandSession, settings: Settings, **options: Any) -> Dispatch:
    """The part that sends commands, made as a worker makes it, with these options."""
    return Dispatch(pool, command_session, settings, Counters(pool, settings).count, **options)


@asynccontextmanager
async def subscribed_listener(pool: Pool) -> AsyncIterator[None]:
    """Hold a slot as a subscribed listener does. Without one nothing is sent."""
    await identity.require(pool)  # A worker does this first.
    async with listeners.acquire_slot(pool, 0) as lock:
        assert lock is not None
        await lock.announce()
        await lock.beat("nothing")
        listening = asyncio.create_task(lock.listen("nothing", lambda: None))
        try:
            yield
        finally:
            await end(listening)


async def mark_sent(host: Connection, campaign: int, devices: Sequence[str], *, attempt: int = 1) -> None:
    """Set these devices to DOWNLOADING as if they had just been sent to, and count the campaign."""
    await host.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = $3, sent_attempt = $3, started_at = now(),"
        " due_at = now() + interval '1 hour' WHERE campaign_id = $1 AND device_id = ANY ($2)",
        campaign,
        devices,
        attempt,
    )
    await host.execute(
        "UPDATE ota_campaigns SET sent = sent + $2, pending = rows.pending, downloading = rows.downloading,"
        " installing = rows.installing, skipped = rows.skipped FROM (SELECT"
        " count(*) FILTER (WHERE status = 'PENDING') AS pending,"
        " count(*) FILTER (WHERE status = 'DOWNLOADING') AS downloading,"
        " count(*) FILTER (WHERE status = 'INSTALLING') AS installing,"
        " count(*) FILTER (WHERE status = 'SKIPPED') AS skipped"
        " FROM ota_device_status WHERE campaign_id = $1) AS rows WHERE id = $1",
        campaign,
        len(devices),
    )


async def campaign_row(connection: Connection, campaign: int, tenant: str = TENANT) -> tuple[str, int, int]:
    """The campaign's (status, succeeded, failed)."""
    row = await connection.fetchrow(
        "SELECT status, succeeded, failed FROM ota_campaigns WHERE tenant_id = $1 AND id = $2", tenant, campaign
    )
    assert row is not None
    return row["status"], row["succeeded"], row["failed"]


async def breakdown(connection: Connection, campaign: int, tenant: str = TENANT) -> dict[str, int]:
    """The number of devices by status."""
    rows = await connection.fetch(
        "SELECT status, count(*) AS n FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2 GROUP BY 1",
        tenant,
        campaign,
    )
    return {row["status"]: row["n"] for row in rows}


async def campaign_shown(pool: Pool, tenant: str, campaign: int) -> dict[str, Any]:
    """The campaign as the API shows it, without its guardrails and its verdict."""
    async with tenant_transaction(pool, tenant) as connection:
        return await views.campaign(connection, tenant, campaign)


async def device_row(connection: Connection, campaign: int, device: str, tenant: str = TENANT) -> dict[str, Any]:
    """All columns of one device's row."""
    row = await connection.fetchrow(
        "SELECT * FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3",
        tenant,
        campaign,
        device,
    )
    assert row is not None
    return dict(row)


async def wait_until_ended(
    connection: Connection, campaign: int, status: str = "COMPLETED", *, tenant: str = TENANT, timeout: float = 30.0
) -> None:
    """Wait until the campaign has this status and no device is left unfinished."""
    seen: list[object] = []

    async def ended() -> bool:
        found = await breakdown(connection, campaign, tenant)
        now = (await campaign_row(connection, campaign, tenant))[0]
        seen[:] = [now, found]
        return now == status and not found.keys() & {"PENDING", "DOWNLOADING", "INSTALLING"}

    try:
        await eventually(ended, timeout=timeout, what="ended")
    except AssertionError:
        left = await connection.fetch(
            "SELECT * FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2 AND completed_at IS NULL",
            tenant,
            campaign,
        )
        message = f"campaign {campaign} not {status} within {timeout} s: {seen}; left are {[dict(row) for row in left]}"
        raise AssertionError(message) from None


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a device received it. ``at`` is a time of this process's monotonic clock."""

    tenant: str
    device: str
    campaign: int
    attempt: int | None
    body: bytes
    at: float


def incoming_report(
    device: str,
    campaign: int,
    status: str,
    *,
    tenant: str = TENANT,
    attempt: int | None = None,
    error: str | None = None,
    code: str | None = None,
) -> Incoming:
    """A report as the listener receives it from the broker."""
    body = encode_report(campaign, status, error=error, attempt=attempt, code=code)
    return Incoming(status_topic(tenant, device), body, retain=False, attempt=None, handle=cast("Any", None))


Answer: TypeAlias = Callable[[Command], Sequence[bytes]]
"""The reports of a device to a command: payloads, in order."""


def answer_with(*statuses: str) -> Answer:
    """Every device reports these statuses."""
    return lambda command: [encode_report(command.campaign, status) for status in statuses]


def always_succeeds(command: Command) -> Sequence[bytes]:
    """Report a download, an installation and success."""
    return answer_with("DOWNLOADING", "INSTALLING", "SUCCESS")(command)


def only_once(answer: Answer) -> Answer:
    """Answer each campaign's first command only. A lost answer is not sent again."""
    answered: set[tuple[str, int, str]] = set()

    def reply(command: Command) -> Sequence[bytes]:
        key = command.tenant, command.campaign, command.device
        if key in answered:
            return ()
        answered.add(key)
        return answer(command)

    return reply


MAX_UNACKNOWLEDGED_REPORTS = 50
"""Maximum number of reports sent to the broker before it has acknowledged the first of them."""


def never_answers(_: Command) -> Sequence[bytes]:
    """Never report anything."""
    return ()


@dataclass
class Devices:
    """All devices of all tenants, over one connection that is opened again when lost. Reports wait for their PUBACK.

    With a ``client_id``, the broker keeps their commands while they are disconnected.
    """

    answer: Answer
    client_id: str = ""
    when_cancelled: Answer = never_answers
    """The reports of a device to a cancel command. By default, devices carry on."""
    commands: list[Command] = field(default_factory=list)
    accepted: list[tuple[str, bytes]] = field(default_factory=list)
    """Reports that the broker has acknowledged: topic and payload, in order."""
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    _outbox: list[tuple[str, bytes]] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def report(
        self, device: str, campaign: int, status: str, *, tenant: str = TENANT, progress: int | None = None
    ) -> None:
        """Let a device send a report that answers no command."""
        self.send(status_topic(tenant, device), encode_report(campaign, status, progress))

    def send(self, topic: str, payload: bytes) -> None:
        """Put any message into the outbox."""
        self._outbox.append((topic, payload))
        self._more.set()

    async def wait_until_delivered(self) -> None:
        """Wait until the broker has acknowledged every report."""
        await eventually(lambda: not self._outbox, timeout=20, what="reports delivered")

    def commands_of(self, campaign: int, tenant: str = TENANT) -> list[Command]:
        """The commands of one campaign."""
        return [each for each in self.commands if (each.campaign, each.tenant) == (campaign, tenant)]

    def times_sent(self, campaign: int) -> Counter[str]:
        """The number of commands of a campaign that each device has received."""
        return Counter(each.device for each in self.commands_of(campaign))

    async def run(self, broker: Broker) -> None:
        while True:
            with suppress(BrokerUnavailable, ExceptionGroup):
                keeping = bool(self.client_id)
                async with Session.connect(broker, self.client_id, persistent=keeping, timeout=2) as session:
                    await session.subscribe("tenant/+/device/+/ota")
                    self.connected.set()
                    async with asyncio.TaskGroup() as group:
                        sending = group.create_task(self._send(session))
                        await self._receive(session)
                        sending.cancel()
            self.connected.clear()
            await asyncio.sleep(0.05)

    async def _receive(self, session: Session) -> None:
        async for message in session.messages():
            _, tenant, _, device, _ = message.topic.split("/")
            if (tenant, device) == (PROBE, PROBE):
                continue  # A probe of the engine, to see whether the broker accepts anything.
            body = json.loads(message.payload)
            if "campaign_id" not in body:
                continue  # The answer to a device's question: there is nothing to do.
            cancelled = body.get("action") == "cancel"
            campaign = body["campaign_id"]
            command = Command(tenant, device, campaign, message.attempt, message.payload, time.monotonic())
            if not cancelled:
                self.commands.append(command)
            for payload in (self.when_cancelled if cancelled else self.answer)(command):
                self.send(status_topic(tenant, device), payload)

    async def _send(self, session: Session) -> None:
        while True:
            while self._outbox:
                for receipt in [await session.publish(*each) for each in self._outbox[:MAX_UNACKNOWLEDGED_REPORTS]]:
                    await receipt.acknowledged()
                    self.accepted.append(self._outbox.pop(0))
            self._more.clear()
            await self._more.wait()


@asynccontextmanager
async def devices(broker_url: str, answer: Answer = never_answers, client_id: str = "") -> AsyncIterator[Devices]:
    """Simulate devices. Yields once they are subscribed, so that no command is missed."""
    fleet = Devices(answer, client_id)
    running = asyncio.create_task(fleet.run(Broker.from_url(broker_url)))
    try:
        await asyncio.wait_for(fleet.connected.wait(), 20)
        yield fleet
    finally:
        await end(running)
