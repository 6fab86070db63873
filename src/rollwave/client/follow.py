"""Looking at one campaign again and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rollwave.client.api import Api
from rollwave.client.events import Event
from rollwave.client.progress import Meter, Snapshot


@dataclass(frozen=True, slots=True)
class Look:
    """The campaign as it is, and what has happened since the look before."""

    document: dict[str, Any]
    snapshot: Snapshot
    events: Sequence[Event]


class Follower:
    """Follows one campaign over the API."""

    def __init__(self, api: Api, campaign_id: int) -> None:
        self._api = api
        self._path = f"/ota/campaigns/{campaign_id}"
        self._seen = 0
        self.meter = Meter()

    def look(self) -> Look:
        """Look now. The events are read last: they are never behind the rest.

        Raises:
            RollwaveError: as the API answers; looking again later is fine.
        """
        document = self._api.get(self._path)
        snapshot = Snapshot.read(document)
        answer = self._api.get(f"{self._path}/events", after=self._seen)
        events = [Event.read(each) for each in answer["events"]]
        if events:
            self._seen = events[-1].id
        self.meter.see(time.monotonic(), snapshot)
        return Look(document, snapshot, events)
