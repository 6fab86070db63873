"""Reads the present wave and the queue of a campaign under a policy document, for admission and for the wave's gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rollwave.domain.execution import Cell
from rollwave.domain.policy import time_gates
from rollwave.domain.policy.document.model import PolicyDocument, WaveRule
from rollwave.domain.policy.facts import QueueFacts, SegmentGroup, Used
from rollwave.domain.policy.placing import is_zoned, labels_of
from rollwave.domain.policy.waves import CONDITIONS_HOLD, GateDecision, WaveCounts, judge_gate
from rollwave.engine import guardrails
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.store import cells, waves
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.waves import WaveRow


@dataclass(frozen=True, slots=True)
class PresentWave:
    """The present wave of a campaign: its row, its rule (None: a document without waves), and what its gate says.

    ``counts``: of each wave, by its number. ``groups``: the devices that wait. ``last``: no wave follows it. ``over``:
    the guardrails that keep its gate closed, as a phrase; empty: there are none, or they were not judged.
    """

    row: WaveRow
    rule: WaveRule | None
    counts: Mapping[int, WaveCounts]
    groups: Sequence[SegmentGroup]
    decision: GateDecision
    last: bool
    over: str = ""

    @property
    def devices(self) -> WaveCounts:
        """The devices of this wave."""
        return self.counts.get(self.row.number, WaveCounts())


async def read_wave(
    connection: Connection, locked: CampaignUnderPolicy, document: PolicyDocument, *, guarded: bool = True
) -> PresentWave | None:
    """Read the present wave. None: the campaign's devices are not placed yet.

    ``guarded``: guardrails are judged too, which reads all of their tests when the gate's other conditions hold.
    """
    campaign = locked.row
    rows = waves.of(campaign)
    if not rows:
        return None
    counts, groups = await cells.queue(connection, campaign, zoned=is_zoned(document))
    row = rows[min(campaign.wave, len(rows) - 1)]
    rule = document.waves[row.number] if row.number < len(document.waves) else None
    judge = partial(
        judge_gate,
        rule.gate if rule else None,
        counts.get(row.number, WaveCounts()),
        row.soak,
        failed_so_far=sum(each.failed for number, each in counts.items() if number <= row.number),
        now=campaign.read_at,
        promoted=row.promoted_by is not None,
    )
    decision, over, last = judge(), "", row.number == rows[-1].number
    if guarded and not last and row.promoted_by is None and decision.state in CONDITIONS_HOLD:
        over = await guardrails.over_threshold(connection, campaign)
        decision = judge(over=over)
    return PresentWave(row, rule, counts, groups, decision, last, over)


async def read_queue(
    connection: Connection, locked: CampaignUnderPolicy, document: PolicyDocument, *, guarded: bool = False
) -> QueueFacts | None:
    """Read the facts about the queue. None: the campaign's devices are not placed yet.

    ``guarded``: as in :func:`read_wave`. It changes why later waves wait, and not which devices may go.
    """
    campaign, wave = locked.row, await read_wave(connection, locked, document, guarded=guarded)
    if wave is None:
        return None
    return QueueFacts(
        groups=tuple(wave.groups),
        wave=wave.row.name,
        state=wave.decision.state,
        number=wave.row.number,
        until=wave.decision.until,
        lacking=wave.decision.lacking,
        wave_max_in_flight=wave.rule.max_in_flight if wave.rule else None,
        wave_in_flight=wave.devices.in_flight,
        in_flight=sum(each.in_flight for each in wave.counts.values()),
        succeeded=campaign.succeeded,
        firmware_size=_firmware_size(campaign),
        used=_used(campaign),
        only_wave=_only_wave(wave.counts, up_to=campaign.wave),
    )


def _only_wave(counts: Mapping[int, WaveCounts], *, up_to: int) -> int | None:
    found = [number for number, each in counts.items() if each.waiting and number <= up_to]
    return found[0] if len(found) == 1 else None


async def read_head(
    connection: Connection, locked: CampaignUnderPolicy, document: PolicyDocument, *, devices: int
) -> QueueFacts | None:
    """Read only the next cells in turn that have ``devices`` devices in the queue, however many segments there are.

    None: that is not enough to judge the queue. No device may go, or a number of devices in flight is limited, or
    windows differ between segments, or budgets choose the devices.
    """
    campaign, rows = locked.row, waves.of(locked.row)
    if not rows or document.budgets or is_zoned(document):
        return None
    row = rows[min(campaign.wave, len(rows) - 1)]
    if _limits_in_flight(document, row.number):
        return None
    window = time_gates.window(document, None, campaign.read_at)
    if window is not None and not window.open:
        return None
    rooms = _unsplit(campaign, document)
    if not rooms:
        rooms = await cells.next_rooms(connection, campaign, up_to_wave=campaign.wave, zones=None, devices=devices)
    if not rooms:
        return None
    return QueueFacts(
        groups=(SegmentGroup(None, quarantined=False, waiting=sum(rooms.values()), in_later_waves=0),),
        wave=row.name,
        state=row.state,
        number=row.number,
        succeeded=campaign.succeeded,
        firmware_size=_firmware_size(campaign),
        used=_used(campaign),
        rooms=rooms,
    )


def _unsplit(campaign: Campaign, document: PolicyDocument) -> Mapping[Cell, int]:
    """The cells in turn if the policy mentions no label, since the campaign's row was read with them."""
    if labels_of(document):
        return {}
    return {cell: devices for cell, devices in campaign.unsplit.items() if cell.segment not in campaign.quarantined}


def _limits_in_flight(document: PolicyDocument, wave: int) -> bool:
    pace = document.pace
    if wave < len(document.waves) and document.waves[wave].max_in_flight is not None:
        return True
    return pace is not None and (
        pace.max_in_flight is not None or (pace.bytes is not None and pace.bytes.in_flight is not None)
    )


def _firmware_size(campaign: Campaign) -> int | None:
    return campaign.firmware_size if isinstance(campaign.firmware_size, int) else None


def _used(campaign: Campaign) -> Used:
    return Used(campaign.pace_age, campaign.pace_used, campaign.pace_carried, campaign.pace_claims)
