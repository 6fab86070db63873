"""Which campaigns are to be looked at, and when: at once when they are new or in another state, else when they said."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf

from rollwave.domain.campaign import CampaignRef


class Schedule:
    """Knows what was due when the database was last asked. Times are seconds of whatever clock the caller keeps to."""

    def __init__(self) -> None:
        self._due: dict[CampaignRef, CampaignRef] = {}
        self._at: dict[CampaignRef, float] = {}
        self._in_hand: set[CampaignRef] = set()
        self._queue: list[tuple[float, CampaignRef]] = []
        """A heap. What no longer agrees with ``_at``, or is in hand, is passed over."""

    def update(self, due: Sequence[CampaignRef]) -> None:
        """What is due now. Whatever is new here, or in another state than it was, is to be looked at at once."""
        before, self._due = self._due, {ref: ref for ref in due}
        self._at = {ref: at for ref, at in self._at.items() if ref in self._due}
        for ref in due:
            if ref not in before or before[ref].status is not ref.status:
                self._put(ref, -inf)

    def all(self) -> list[CampaignRef]:
        """All that is due."""
        return list(self._due.values())

    def ready(self, now: float) -> list[CampaignRef]:
        """What is to be looked at by ``now``, once: it is to begin, and to come again."""
        found = []
        while self.next_at <= now:
            _, ref = heappop(self._queue)
            del self._at[ref]
            found.append(self._due[ref])
        return found

    def begin(self, ref: CampaignRef) -> None:
        """It is being looked at, and not ready before it has been."""
        self._in_hand.add(ref)
        self._at.pop(ref, None)

    def again(self, ref: CampaignRef, at: float) -> None:
        """It is to be looked at again, unless something has called for that sooner."""
        self._in_hand.discard(ref)
        if ref in self._due:
            self._put(ref, min(at, self._at.get(ref, inf)))

    @property
    def next_at(self) -> float:
        """When the next look is due; infinite: there is nothing to look at."""
        while self._queue:
            at, ref = self._queue[0]
            if self._at.get(ref) == at and ref not in self._in_hand:
                return at
            heappop(self._queue)
        return inf

    def _put(self, ref: CampaignRef, at: float) -> None:
        self._at[ref] = at
        heappush(self._queue, (at, ref))
