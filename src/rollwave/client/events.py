"""A campaign's history as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollwave.client.text import visible
from rollwave.domain import events
from rollwave.domain.event import Event as Recorded
from rollwave.domain.events import AttemptFailed
from rollwave.domain.overview.sentences import sentence


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a campaign's history: time, actor, and details (``what``). ``event`` is its name."""

    id: int
    at: datetime
    event: str
    actor: str
    what: Recorded

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Event:
        """Read one element of the response of ``GET …/campaigns/{id}/events``."""
        return cls(
            document["id"],
            datetime.fromisoformat(document["at"]),
            document["event"],
            document["actor"],
            events.read(document["event"], document["detail"], document["device_id"]),
        )

    @property
    def device_id(self) -> str | None:
        """The device that the event is about. None: the campaign as a whole."""
        return self.what.device_id

    @property
    def cause(self) -> str | None:
        """The cause of a failed attempt. None: the event is another one."""
        return visible(self.what.message or "no reason given") if isinstance(self.what, AttemptFailed) else None

    @property
    def sentence(self) -> str:
        """The event as a sentence, with control characters escaped."""
        return visible(sentence(self.what))
