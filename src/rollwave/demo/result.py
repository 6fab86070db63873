"""The result of the story, and how it differs from the expected one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rollwave.client.progress import Snapshot
from rollwave.demo.devices import BAD, DEVICES, GOOD, revision
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus


@dataclass(frozen=True, slots=True)
class Result:
    """The final state of the campaigns, and the number of devices that reported each outcome, by campaign id."""

    good: Snapshot
    bad: Snapshot
    partial: Snapshot
    reported: Mapping[int, Counter[ExecutionStatus]]

    @property
    def faults(self) -> list[str]:
        """What differs from the expected result. Empty: nothing."""
        found = []
        if self.good.status is not CampaignStatus.COMPLETED or self.good.succeeded != len(DEVICES):
            found.append(f"{GOOD} should be COMPLETED with {len(DEVICES)} updated, and is {_short(self.good)}")
        if self.bad.status is not CampaignStatus.ABORTED or not self.skipped:
            found.append(f"{BAD} should be ABORTED before all devices were sent to, and is {_short(self.bad)}")
        fits = sum(revision(each) == "A" for each in DEVICES)
        if self.partial.succeeded != fits or not self.partial.failed or not self.quarantined:
            found.append(f"{BAD} should be on the {fits} devices of revision A, and is {_short(self.partial)}")
        for each in (self.good, self.bad, self.partial):
            reported = self.reported.get(each.id, Counter())
            if (reported[ExecutionStatus.SUCCESS], reported[ExecutionStatus.FAILED]) != (each.succeeded, each.failed):
                found.append(f"{each.version}: counted {_short(each)}, but the devices reported {dict(reported)}")
        return found

    @property
    def skipped(self) -> int:
        """Number of devices to which the bad firmware was never sent."""
        return self.bad.by_state[ExecutionStatus.SKIPPED]

    @property
    def quarantined(self) -> int:
        """Number of devices that the quarantine kept from the bad firmware."""
        return self.partial.by_state[ExecutionStatus.SKIPPED]


def _short(snapshot: Snapshot) -> str:
    return f"{snapshot.status} with {snapshot.succeeded} succeeded and {snapshot.failed} failed"
