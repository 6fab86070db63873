"""Which campaigns are to be looked at, and when: at once when they are new or in another state, else when they said."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf
from typing import TypeAlias

from rollwave.store.campaigns import Due

SOON = 1.0
"""Seconds until a campaign is looked at again, where nothing tells when that is worth while."""

TURN = 2.0
"""Seconds for which one campaign is worked on, before others that wait get their turn."""

Key: TypeAlias = tuple[str, int]


def key(due: Due) -> Key:
    """What tells a campaign from all others."""
    return due.tenant_id, due.campaign_id


class Agenda:
    """Knows what was due when the database was last asked. Times are seconds of whatever clock the caller keeps to."""

    def __init__(self) -> None:
        self._due: dict[Key, Due] = {}
        self._at: dict[Key, float] = {}
        self._in_hand: set[Key] = set()
        self._queue: list[tuple[float, Key]] = []
        """A heap. What no longer agrees with ``_at``, or is in hand, is passed over."""

    def update(self, due: Sequence[Due]) -> None:
        """What is due now. Whatever is new here, or in another state than it was, is to be looked at at once."""
        before, self._due = self._due, {key(each): each for each in due}
        self._at = {name: at for name, at in self._at.items() if name in self._due}
        for name, each in self._due.items():
            if name not in before or before[name].status is not each.status:
                self._put(name, -inf)

    def all(self) -> list[Due]:
        """All that is due."""
        return list(self._due.values())

    def ripe(self, now: float) -> list[Due]:
        """What is to be looked at by ``now``, once: it is to begin, and to come again."""
        found = []
        while self.soonest <= now:
            _, name = heappop(self._queue)
            del self._at[name]
            found.append(self._due[name])
        return found

    def begin(self, due: Due) -> None:
        """It is being looked at, and not ripe before it has been."""
        self._in_hand.add(key(due))
        self._at.pop(key(due), None)

    def again(self, due: Due, at: float) -> None:
        """It is to be looked at again, unless something has called for that sooner."""
        name = key(due)
        self._in_hand.discard(name)
        if name in self._due:
            self._put(name, min(at, self._at.get(name, inf)))

    @property
    def soonest(self) -> float:
        """When the next look is due; infinite: there is nothing to look at."""
        while self._queue:
            at, name = self._queue[0]
            if self._at.get(name) == at and name not in self._in_hand:
                return at
            heappop(self._queue)
        return inf

    def _put(self, name: Key, at: float) -> None:
        self._at[name] = at
        heappush(self._queue, (at, name))
