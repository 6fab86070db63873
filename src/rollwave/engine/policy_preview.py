"""What a dry run says: the policy as it would be stored, what it would do to the devices, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview.at_start import AtStart, at_start
from rollwave.domain.overview.overlaps import Overlap
from rollwave.domain.policy import flat
from rollwave.domain.policy.advice import advice
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.exposure import exposed_devices
from rollwave.domain.policy.facts import Facts
from rollwave.domain.policy.placing import Order, Placing, placing_of
from rollwave.domain.policy.rules import Policy, Wave, policy_of, wave_name
from rollwave.domain.policy.rules import read_policy as read_policy_columns
from rollwave.domain.policy.windows import Span
from rollwave.engine import placing
from rollwave.errors import InvalidInput, UnreadableRow
from rollwave.settings import Settings
from rollwave.store import brakes, moments
from rollwave.store import placing as places
from rollwave.store.database import Connection
from rollwave.store.new_campaigns import NewCampaign
from rollwave.store.placing_statements import Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WavePreview:
    """The number of ``devices`` that a wave would have."""

    name: str
    devices: int


@dataclass(frozen=True, slots=True)
class PolicyPreview:
    """The answer of a dry run: the document as it would be stored, and warnings for people.

    ``waves`` and ``segments`` count the devices of the group. ``openings``: the next times in which devices may be sent
    to, without those of windows in the zones of devices; empty: there are no windows. ``exposed``: the most devices
    that are sent to before a guardrail can act; None: no guardrail does. ``at_start``: what Start would do now.
    ``also_in``: other unfinished campaigns that have devices of the group; of an edit: none.
    """

    data: object
    flat: bool
    warnings: Sequence[str]
    waves: Sequence[WavePreview]
    segments: int
    openings: Sequence[Span]
    exposed: int | None
    at_start: AtStart
    also_in: Sequence[Overlap] = ()


async def preview(
    connection: Connection, settings: Settings, source: Source, document: PolicyDocument
) -> PolicyPreview:
    """What a dry run says about a document, and what it would do to the devices of ``source``.

    Raises:
        InvalidInput: they would make too many segments.
    """
    of = any_order(document)
    found = await placing.count(connection, source, of)
    counted = await places.count_waves(connection, source, of, found)
    waves = [WavePreview(name, counted.get(number, 0)) for number, name in enumerate(of.names)]
    policy = policy_of(
        document,
        tenant_id=source.tenant_id,
        progress_timeout=settings.progress_timeout,
        device_timeout=settings.device_timeout,
        max_attempts=settings.max_attempts,
    )
    now = await moments.now(connection)
    told = advice(document, now)
    warnings = [
        *told.warnings,
        *(
            f"the selector of wave {each.name} matches no device, which pauses the campaign"
            for each, matched in zip(waves, found.matched, strict=True)
            if matched == 0
        ),
    ]
    return PolicyPreview(
        to_data(document),
        flat=False,
        warnings=warnings,
        waves=waves,
        segments=found.segments,
        openings=told.openings,
        exposed=exposed_devices(policy, waves=[each.devices for each in waves], segments=found.segments),
        at_start=await _at_start(connection, settings, policy, source.tenant_id, waves, now),
    )


async def _at_start(
    connection: Connection,
    settings: Settings,
    policy: Policy,
    tenant_id: str,
    waves: Sequence[WavePreview],
    now: datetime,
) -> AtStart:
    """What Start would do now, if reports can be received."""
    standing = await brakes.standing(connection, tenant_id)
    facts = Facts(now, CampaignStatus.RUNNING, settings.tick_interval, Wave(0, None), brakes=standing)
    return at_start(policy, facts, waves[0].devices)


async def preview_flat(
    connection: Connection, new: NewCampaign, tenant_id: str, settings: Settings, *, devices: int
) -> PolicyPreview:
    """What a dry run says about a campaign without a document, over a group of ``devices``.

    Raises:
        InvalidInput: a rule cannot be read.
    """

    def own(value: T | None, default: T) -> T:
        return default if value is None else value

    try:
        policy = read_policy_columns(
            tenant_id=tenant_id,
            threshold=new.abort_threshold,
            min_completed=new.abort_min_completed,
            rate=new.rollout_rate,
            max_in_flight=new.max_in_flight,
            progress_timeout=own(new.progress_timeout, settings.progress_timeout),
            answer_timeout=new.answer_timeout,
            device_timeout=own(new.device_timeout, settings.device_timeout),
            max_attempts=own(new.max_attempts, settings.max_attempts),
            retry_on=new.retry_on,
            retry_delay=new.retry_delay,
            retry_delay_max=new.retry_delay_max,
            strategy=new.rollout_strategy,
            canary_percent=new.canary_percent,
        )
    except UnreadableRow as error:
        raise InvalidInput(str(error), hint=error.hint) from error
    plan = policy.plan(devices)
    sizes = [devices if each.up_to is None else min(devices, each.up_to) for each in plan]
    waves = [
        WavePreview(wave_name(number, plan), size - (sizes[number - 1] if number else 0))
        for number, size in enumerate(sizes)
    ]
    in_flight = policy.max_in_flight
    needed = policy.guardrail.min_completed
    exposed = waves[0].devices if in_flight is None else min(waves[0].devices, needed - 1 + in_flight)
    return PolicyPreview(
        flat.as_document(policy, tick=settings.tick_interval),
        flat=True,
        warnings=(),
        waves=waves,
        segments=0,
        openings=(),
        exposed=exposed,
        at_start=await _at_start(connection, settings, policy, tenant_id, waves, await moments.now(connection)),
    )


def any_order(document: PolicyDocument) -> Placing:
    """Where devices stand, but for the order within a wave: that changes no count, and a label's takes writing."""
    return replace(placing_of(document), order=Order.HASH, order_by=None)
