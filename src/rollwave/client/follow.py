"""Follow one campaign over the API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rollwave.client.api import Api
from rollwave.client.events import Event
from rollwave.client.progress import Meter, Snapshot

_PAGE = 1000
_CAUSES = 100
_OTHER = "other causes"


@dataclass(frozen=True, slots=True)
class Look:
    """The campaign now, and its events since the last look.

    ``to_show`` are the events without repetitions: of failures, only the first of each cause. ``causes`` counts the
    failed attempts seen so far, by cause.
    """

    document: dict[str, Any]
    snapshot: Snapshot
    events: Sequence[Event]
    to_show: Sequence[Event]
    causes: Counter[str]


class Follower:
    """Follows one campaign over the API."""

    def __init__(self, api: Api, campaign_id: int) -> None:
        self._api = api
        self._path = f"/ota/campaigns/{campaign_id}"
        self._seen = 0
        self._causes: Counter[str] = Counter()
        self.meter = Meter()

    def look(self) -> Look:
        """Read the campaign now. The events are read last, so they are never older than the rest.

        Raises:
            RollwaveError: the API answered with an error. It may be called again.
        """
        document = self._api.get(self._path)
        snapshot = Snapshot.read(document)
        answer = self._api.get(f"{self._path}/events", after=self._seen, limit=_PAGE)
        self._seen = answer["next_after"]
        events = [Event.read(each) for each in answer["events"]]
        to_show = [event for event in events if self._is_new(event)]
        self.meter.see(time.monotonic(), snapshot)
        return Look(document, snapshot, events, to_show, self._causes)

    def _is_new(self, event: Event) -> bool:
        cause = event.cause
        if cause is None:
            return True
        if cause not in self._causes and len(self._causes) >= _CAUSES:
            cause = _OTHER
        self._causes[cause] += 1
        return self._causes[cause] == 1
