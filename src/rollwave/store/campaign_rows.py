"""Rows of campaigns, as the engine reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from rollwave.domain.brakes import Brake
from rollwave.domain.campaign import FINAL, Activity, CampaignStatus
from rollwave.domain.execution import Cell
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.facts import PaceClaim
from rollwave.domain.policy.placing import Survey
from rollwave.domain.policy.rules import OwnTimes, Wave
from rollwave.store import brakes, policies
from rollwave.store.moments import moment
from rollwave.store.policies import DocumentInForce


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign's row.

    Its rules are unchecked here, as they are stored; ``domain.policy.rules`` reads them. Timeouts, delays and ages
    are seconds; ``threshold`` is a share from 0 to 1, ``canary_percent`` a percentage, ``rate`` devices per tick.
    """

    tenant_id: TenantId
    id: CampaignId
    status: CampaignStatus
    strategy: str | None
    rate: int | None
    threshold: float | None
    min_completed: int | None
    canary_percent: float | None
    max_in_flight: int | None
    progress_timeout: float | None
    answer_timeout: float | None
    device_timeout: float | None
    max_attempts: int | None
    retry_on: tuple[str, ...] | None
    retry_delay: float | None
    retry_delay_max: float | None
    policy_revision: int | None
    """The revision of the policy document in force. None: the campaign follows the columns above."""
    policy_version: str | None
    """Tells that revision's row from every other one, of other databases too. None: there is no such row."""
    document: PolicyDocument | None
    """That document. None: there is none, or it cannot be read."""
    document_fault: str | None
    """The reason for which the document in force cannot be read. None: it can, or there is none."""
    own_times: OwnTimes | None
    """The timeouts and retries stored beside the document in force. None: there is none."""
    succeeded: int
    failed: int
    sent: int
    wave: int
    segment_turn: int
    """The segment from which the last claim took devices, under a policy document."""
    placement: Mapping[str, Any] | None
    """How far the devices are placed by the policy document (:mod:`rollwave.store.placing`). None: all are."""
    placed_revision: int | None
    """The revision by which the devices are placed, or are being placed. None: by none."""
    pace_age: float | None
    """Seconds since the pace's interval began. None: no device has been claimed yet."""
    pace_used: int
    """Devices claimed in this interval."""
    pace_carried: float
    """The part of a device that was left over before this interval, under a policy document."""
    pace_claims: tuple[PaceClaim, ...]
    """The claims of the last tick, under a policy document."""
    reconciled_age: float | None
    """Seconds since the last comparison of counters and rows. None: there was none."""
    counted: bool
    """Whether its counters are correct: compared with the rows, or changed with them from the beginning."""
    counting: bool
    """Whether its counters change with its rows. Until it is counted, they do not include earlier changes."""
    activity: Activity
    command: str | None
    firmware_url: str | None
    firmware_version: str | None
    firmware_checksum: str | None
    firmware_size: object
    firmware_device_type: str | None
    target_group_id: str | None
    targeted_devices: int | None
    """Number of members of the group that were targeted so far. None: the campaign is targeted."""
    targeted_up_to: str | None
    """The last of them, by id."""
    waves: tuple[Wave, ...]
    """Empty until planned."""
    status_reason: str | None
    read_at: datetime
    """When the row was read, by the database's clock."""
    in_own_database: bool
    """Whether the installation belongs to this database. False: nothing may be sent."""
    brakes: tuple[Brake, ...]
    """The tenant's halt, and its freezes that are not over."""
    stopped_by: tuple[str, ...]
    """The labels of the brakes that stop the campaign, as far as history says so."""
    document_waves: str | None
    """The waves of its document as JSON, which :mod:`rollwave.store.waves` reads."""
    quarantined: tuple[int, ...]
    """The numbers of the segments under quarantine, in order."""
    unsplit: Mapping[Cell, int]
    """Devices in the queue of the waves so far, in the segment of devices without labels, the lowest wave first."""
    heard_slots: frozenset[int]
    """The listener slots whose reports are received; see :meth:`heard`."""
    deadlines_in: float
    """Seconds in which no deadline is judged. 0 or less: deadlines may be judged."""

    def heard(self, slots: int) -> bool:
        """Whether reports are received, so that commands may be sent: every slot is subscribed, or was a moment ago.

        False while a listener is about to subscribe: a report that a device sends immediately might be lost. Under a
        policy document, also while a slot has a listener of an earlier version, which would judge by flat columns.
        """
        return self.heard_slots >= set(range(slots))

    @property
    def survey(self) -> Survey | None:
        """The count of the devices to place. None: there is nothing to place, or they are not counted yet."""
        stored = (self.placement or {}).get("survey")
        return None if stored is None else Survey.from_json(stored)

    @property
    def placing_fault(self) -> str | None:
        """The reason for which its devices cannot be placed now. None: there is none."""
        fault: str | None = (self.placement or {}).get("fault")
        return fault

    @property
    def placing_began(self) -> str | None:
        """When an edit began the placing that goes on, which tells it from others. None: there is none."""
        began: str | None = (self.placement or {}).get("began")
        return began

    @property
    def filled(self) -> tuple[int, str, int] | None:
        """All devices are placed, and the first ones of budgets return to the queue: up to this value and segment."""
        stored = (self.placement or {}).get("filled")
        return tuple(stored) if stored else None

    @property
    def being_targeted(self) -> bool:
        """Whether not every device is targeted yet. Until then, nothing is sent, planned or completed."""
        return self.targeted_devices is not None and self.status not in FINAL

    @property
    def must_be_placed(self) -> bool:
        """Whether other SQL has put the document in force, so that the devices do not stand by it yet.

        Until they do, nothing is sent. An edit begins to place them itself.
        """
        return self.document is not None and self.placed_revision != self.policy_revision and self.status not in FINAL


@dataclass(frozen=True, slots=True)
class CampaignCounters:
    """The counters of one campaign after a change, and its stored guardrail: a share, and a number of devices.

    ``policy_revision``: of the policy document that it follows; then the stored guardrail means nothing. ``document``:
    that document. None: there is none, or the campaign's row must be read to know it.
    """

    campaign_id: CampaignId
    status: CampaignStatus
    succeeded: int
    failed: int
    sent: int
    threshold: float | None
    min_completed: int | None
    policy_revision: int | None = None
    document: PolicyDocument | None = None


class JudgedCampaign(NamedTuple):
    """The part of a campaign under a policy document that its guardrails need when devices end."""

    tenant_id: str
    id: CampaignId
    policy_revision: int | None
    document: PolicyDocument | None


AnyCampaign: TypeAlias = Campaign | JudgedCampaign


def status(word: str) -> CampaignStatus:
    """The status. A host's table may contain other values: such a campaign counts as ended."""
    return CampaignStatus(word) if word in CampaignStatus.__members__ else CampaignStatus.COMPLETED


def _claims(numbers: Sequence[float] | None) -> tuple[PaceClaim, ...]:
    """The claims of the last tick, from the row's times and numbers of devices, in turn."""
    pairs = zip((numbers or ())[::2], (numbers or ())[1::2], strict=True)
    return tuple(PaceClaim(at, int(devices)) for at, devices in pairs)


def campaign(row: asyncpg.Record, in_force: DocumentInForce) -> Campaign:
    """Read a row of the statement ``campaigns.get``."""
    return Campaign(
        tenant_id=row["tenant_id"],
        id=row["id"],
        status=status(row["status"]),
        strategy=row["rollout_strategy"],
        rate=row["rollout_rate"],
        threshold=row["abort_threshold"],
        min_completed=row["abort_min_completed"],
        canary_percent=row["canary_percent"],
        max_in_flight=row["max_in_flight"],
        progress_timeout=row["progress_timeout"],
        answer_timeout=row["answer_timeout"],
        device_timeout=row["device_timeout"],
        max_attempts=row["max_attempts"],
        retry_on=None if row["retry_on"] is None else tuple(row["retry_on"]),
        retry_delay=row["retry_delay"],
        retry_delay_max=row["retry_delay_max"],
        policy_revision=row["policy_revision"],
        policy_version=row["row_version"],
        document=in_force.document,
        document_fault=in_force.fault,
        own_times=policies.stored_times(row),
        succeeded=row["succeeded"] or 0,
        failed=row["failed"] or 0,
        sent=row["sent"],
        wave=row["wave"],
        segment_turn=row["segment_turn"],
        placement=json.loads(row["placement"]) if row["placement"] else None,
        placed_revision=row["placed_revision"],
        pace_age=row["pace_age"],
        pace_used=row["pace_used"],
        pace_carried=row["pace_carried"],
        pace_claims=_claims(row["pace_claims"]),
        reconciled_age=row["reconciled_age"],
        counted=row["counted"],
        counting=row["counting"],
        activity=Activity(row["active_for"], row["seen_ago"], row["suspended_for"], row["suspended_lately"]),
        command=row["command"],
        firmware_url=row["file_url"],
        firmware_version=row["version"],
        firmware_checksum=row["checksum_sha256"],
        firmware_size=row["file_size_bytes"],
        firmware_device_type=row["device_type"],
        target_group_id=row["target_group_id"],
        targeted_devices=row["targeted_devices"],
        targeted_up_to=row["targeted_up_to"],
        waves=tuple(Wave(number, up_to) for number, up_to in enumerate(row["waves"])),
        status_reason=row["status_reason"],
        read_at=moment(row["read_at"]),
        in_own_database=row["in_own_database"],
        brakes=brakes.read(row["brakes"]),
        stopped_by=tuple(row["stopped_by"]),
        document_waves=row["document_waves"],
        quarantined=tuple(row["quarantined"]),
        unsplit={Cell(wave, segment): devices for wave, segment, devices in json.loads(row["unsplit"] or "[]")},
        heard_slots=frozenset(row["heard_slots"]),
        deadlines_in=row["deadlines_in"] or 0.0,
    )


def counters(row: asyncpg.Record, document: PolicyDocument | None = None) -> CampaignCounters:
    """Read a row that a statement returns after it has changed counters. ``document``: the campaign's."""
    return CampaignCounters(
        row["id"],
        status(row["status"]),
        row["succeeded"],
        row["failed"],
        row["sent"],
        row["abort_threshold"],
        row["abort_min_completed"],
        row.get("policy_revision"),
        document,
    )
