"""One snapshot of the campaigns under a policy document, as plain rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, TypeAlias

import asyncpg

from tests.policy_audit import labels as registry

Connection: TypeAlias = registry.Connection
Json: TypeAlias = registry.Json
Row: TypeAlias = "Mapping[str, Any] | asyncpg.Record"

WAITING, IN_FLIGHT, SUCCEEDED, FAILED, SKIPPED = "waiting", "in_flight", "succeeded", "failed", "skipped"
STATES = (WAITING, IN_FLIGHT, SUCCEEDED, FAILED, SKIPPED)
_ENDED = {"SUCCESS": SUCCEEDED, "FAILED": FAILED, "SKIPPED": SKIPPED}

POSITIONS_OF_A_WAVE = 2**44

EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Campaign:
    """A campaign with everything that belongs to it. ``documents``: by revision; ``labels``: by device.

    ``events``: those of the campaign as a whole, in their order.
    """

    row: Row
    documents: Mapping[int, Json]
    devices: Sequence[Row] = ()
    waves: Sequence[Row] = ()
    segments: Mapping[int, Row] = field(default_factory=dict)
    cells: Sequence[Row] = ()
    tests: Sequence[Row] = ()
    buckets: Sequence[Row] = ()
    budget_values: Sequence[Row] = ()
    labels: Mapping[str, Json] = field(default_factory=dict)
    events: Sequence[Row] = ()
    began: datetime = EVER
    ended: datetime = EVER
    """The snapshot was taken between these two times of the database's clock."""

    @property
    def key(self) -> tuple[str, int]:
        """Tenant and id."""
        return self.row["tenant_id"], self.row["id"]

    @property
    def revision(self) -> int:
        """The revision of the document in force."""
        number: int = self.row["policy_revision"]
        return number

    @property
    def document(self) -> Json:
        """The document in force."""
        return self.documents[self.revision]

    @property
    def being_placed(self) -> bool:
        """Whether its devices are being placed, so that nothing may be sent."""
        return self.row["targeted_devices"] is not None

    @property
    def placed(self) -> list[Row]:
        """The devices that have a place in a wave and a segment."""
        return [each for each in self.devices if each["segment"] > 0]

    def labels_of(self, device: Row) -> Json:
        """The labels of a device. One that nobody registered has its id only."""
        return self.labels.get(device["device_id"], {"device_id": device["device_id"]})

    def events_since(self, before: Campaign | None) -> list[Row]:
        """The events after another snapshot."""
        last = before.events[-1]["id"] if before is not None and before.events else 0
        return [each for each in self.events if each["id"] > last]

    def documents_since(self, before: Campaign | None) -> list[Json]:
        """The documents that were in force between another snapshot and this one."""
        first = self.revision if before is None else before.revision
        return [self.documents[number] for number in range(first, self.revision + 1) if number in self.documents]


def state_of(device: Row) -> str:
    """The state of a device, as cells count it."""
    if device["status"] == "PENDING":
        return IN_FLIGHT if device["attempt"] else WAITING
    return _ENDED.get(device["status"], IN_FLIGHT)


def _placed(device: Row) -> Row:
    """A device that a budget holds has a negative segment."""
    return {**device, "segment": abs(device["segment"]), "held": device["segment"] < 0}


def wave_of(device: Row) -> int:
    """The number of the wave of a placed device."""
    return int(device["position"] // POSITIONS_OF_A_WAVE) - 1


def counted(devices: Sequence[Row]) -> Counter[tuple[int, int, str]]:
    """Devices by wave, segment and state."""
    return Counter((wave_of(each), each["segment"], state_of(each)) for each in devices)


def share(text: str) -> Fraction:
    """The share that a text such as ``"5%"`` says."""
    return Fraction(text.removesuffix("%")) / 100


def number_of(amount: int | str, devices: int) -> int:
    """A number of devices, or the share of ``devices``, rounded up and at least 1."""
    if isinstance(amount, int):
        return amount
    exact = share(amount) * devices
    return max(1, -(-exact.numerator // exact.denominator))


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}


def seconds(text: str) -> float:
    """Seconds of a duration such as ``90s``."""
    return float(text[:-1]) * _SECONDS[text[-1]]


def size(text: str) -> float:
    """Bytes of a size such as ``50MiB``."""
    unit = next(each for each in _BYTES if text.endswith(each))
    return float(text.removesuffix(unit)) * _BYTES[unit]


async def read(connection: Connection) -> list[Campaign]:
    """All campaigns under a document, in the transaction's snapshot."""
    began = await connection.fetchval("SELECT statement_timestamp()")
    campaigns = await connection.fetch(
        "SELECT c.*, f.file_size_bytes FROM ota_campaigns c LEFT JOIN firmware_versions f"
        " ON f.tenant_id = c.tenant_id AND f.id = c.firmware_version_id WHERE c.policy_revision IS NOT NULL"
    )
    if not campaigns:
        return []
    documents = await connection.fetch(
        "SELECT campaign_id, revision, document::text AS text FROM ota_campaign_policies"
    )
    # A device that is being placed anew has its new place if it is not after the last one that was, or if all have.
    devices = await connection.fetch(
        "SELECT d.*, COALESCE(c.placement, '{}') ? 'filled' OR d.device_id <= c.targeted_up_to AS reached"
        " FROM ota_device_status d"
        " JOIN ota_campaigns c ON c.tenant_id = d.tenant_id AND c.id = d.campaign_id"
        " WHERE c.policy_revision IS NOT NULL"
    )
    labels = await registry.read_labels(connection)
    events = await connection.fetch(
        "SELECT id, campaign_id, event, actor, detail::text AS detail FROM ota_campaign_history"
        " WHERE device_id IS NULL ORDER BY id"
    )
    of = {}
    for table in ("waves", "segments", "cells", "tests", "test_buckets", "budget_values"):
        of[table] = await connection.fetch(f"SELECT * FROM ota_campaign_{table}")
    ended = await connection.fetchval("SELECT clock_timestamp()")

    def own(rows: Sequence[asyncpg.Record], campaign: asyncpg.Record) -> list[Row]:
        return [dict(each) for each in rows if each["campaign_id"] == campaign["id"]]

    return [
        Campaign(
            dict(row),
            {each["revision"]: json.loads(each["text"]) for each in own(documents, row)},
            [_placed(each) for each in own(devices, row)],
            sorted(own(of["waves"], row), key=lambda each: int(each["number"])),
            {each["number"]: each for each in own(of["segments"], row)},
            own(of["cells"], row),
            own(of["tests"], row),
            own(of["test_buckets"], row),
            own(of["budget_values"], row),
            labels.get(row["tenant_id"], {}),
            own(events, row),
            began,
            ended,
        )
        for row in campaigns
    ]
