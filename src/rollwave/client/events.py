"""Events of a campaign's history, as the API tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollwave.client.text import visible
from rollwave.domain.events import AttemptFailed


@dataclass(frozen=True, slots=True)
class Event:
    """One event: ``event`` is its name, ``sentence`` says what happened. Control characters are escaped.

    ``device_id``: the device that it is about; None: the campaign as a whole. ``cause``: of a failed attempt; None: it
    is another event.
    """

    at: datetime
    event: str
    device_id: str | None
    sentence: str
    cause: str | None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Event:
        """Read one element of the response of ``GET …/campaigns/{id}/events``."""
        name = document["event"]
        failed = name == AttemptFailed.word
        return cls(
            at=datetime.fromisoformat(document["at"]),
            event=name,
            device_id=document["device_id"],
            sentence=visible(document.get("text") or name.replace("_", " ")),
            cause=visible(str(document["detail"].get("reason") or "no reason given")) if failed else None,
        )
