"""The facts about one campaign at one moment, of which the verdict is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.overview.brakes import StoppedBy
from rollwave.domain.overview.guardrails import GuardrailStanding, most_used_first
from rollwave.domain.overview.how_far import HowFar
from rollwave.domain.overview.segments import SegmentStanding
from rollwave.domain.overview.waves import WaveStanding


def _no_devices() -> HowFar:
    return HowFar(dict.fromkeys(ExecutionStatus, 0))


@dataclass(frozen=True, slots=True)
class OverviewFacts:
    """What is known of a campaign.

    ``reason``: why it was paused or aborted. ``version``: of the firmware. ``wanted``: devices of its group.
    ``targeted``: those targeted so far; None: all are. ``fault``: why targeting or placing cannot go on (None: it can).
    ``wave``: the number of the present wave. ``segments``: those that fail most, with their limits. ``heard``: every
    listener slot is subscribed. ``in_own_database``: the installation belongs to this database. ``silent_for``:
    seconds since a device of the campaign reported; None: none has, or that is not known. ``cancelled``: its devices
    are told to stop.
    """

    status: CampaignStatus
    devices: HowFar = field(default_factory=_no_devices)
    reason: str | None = None
    version: str = ""
    wanted: int = 0
    targeted: int | None = None
    fault: str | None = None
    guardrails: Sequence[GuardrailStanding] = ()
    waves: Sequence[WaveStanding] = ()
    wave: int = 0
    stopped_by: Sequence[StoppedBy] = ()
    segments: Sequence[SegmentStanding] = ()
    heard: bool = True
    in_own_database: bool = True
    silent_for: float | None = None
    cancelled: bool = False

    @property
    def ended(self) -> bool:
        """Whether the campaign is in a final state."""
        return self.status in FINAL

    @property
    def present_wave(self) -> WaveStanding | None:
        """The wave that may be sent to now. None: there is none yet."""
        return next((each for each in self.waves if each.number == self.wave), None)

    @property
    def closest(self) -> GuardrailStanding | None:
        """The guardrail that is nearest to tripping, or has tripped. None: there is none."""
        return next(iter(most_used_first(self.guardrails)), None)
