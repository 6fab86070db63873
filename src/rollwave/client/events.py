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
    def cause(self) -> str | None:
        """Why a device failed; None when this is not about that."""
        return visible(str(self.detail.get("reason") or "no reason given")) if self.event == "attempt_failed" else None

    @property
    def sentence(self) -> str:
        """What happened, safe to show."""
        return visible(_tell(self, self.detail))


def _tell(event: Event, detail: Mapping[str, Any]) -> str:
    reason = f": {detail['reason']}" if detail.get("reason") else ""
    match event.event:
        case "created":
            return f"created for {detail.get('devices')} devices"
        case "running":
            return "started" if detail.get("from") == "CREATED" else f"goes on{reason}"
        case "paused" | "aborted" | "completed":
            return f"{event.event.upper()}{reason}"
        case "wave_opened":
            return f"wave {int(detail['wave']) + 1} opens: {detail['succeeded']} succeeded, {detail['failed']} failed"
        case "attempt_failed" | "given_up":
            return f"{event.device_id} {'failed' if event.event == 'attempt_failed' else 'is given up'}{reason}"
        case _:
            facts = ", ".join(f"{name} {value}" for name, value in detail.items())
            about = f"{event.device_id} " if event.device_id else ""
            return f"{about}{event.event.replace('_', ' ')}{': ' if facts else ''}{facts}"
