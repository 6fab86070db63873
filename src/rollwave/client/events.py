"""A campaign's history as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollwave.client.text import visible


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a campaign's history. ``device_id`` is None when it is about the campaign as a whole."""

    id: int
    at: datetime
    event: str
    actor: str
    device_id: str | None
    detail: Mapping[str, Any]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Event:
        """Read one of what ``GET …/campaigns/{id}/events`` answers."""
        return cls(
            document["id"],
            datetime.fromisoformat(document["at"]),
            document["event"],
            document["actor"],
            document["device_id"],
            document["detail"],
        )

    @property
    def sentence(self) -> str:
        """What happened, safe to show."""
        told = _SENTENCES.get(self.event, self.event.replace("_", " "))
        about = f"{self.device_id} " if self.device_id else ""
        facts = ", ".join(_fact(name, value) for name, value in self.detail.items())
        return visible(f"{about}{told}{': ' if facts else ''}{facts}")


_SENTENCES: Mapping[str, str] = {}


def _fact(name: str, value: object) -> str:
    return str(value) if name == "reason" else f"{name.replace('_', ' ')} {value}"
