"""The waves of a campaign, in numbers and in words, and what each one waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollwave.domain.policy.words import WaveState
from rollwave.domain.role import Role

_STATES: Mapping[str, str] = {
    WaveState.AWAITING_APPROVAL: "waits for an approval",
    WaveState.FAILED: "its gate has failed",
}
"""What is shown of a wave where its state alone would not say it."""

_UNFINISHED = frozenset({WaveState.WAITING, WaveState.OPEN, WaveState.SOAKING, WaveState.AWAITING_APPROVAL})

_WAITS_FOR: Mapping[str, str] = {
    WaveState.SOAKING: "soak",
    WaveState.AWAITING_APPROVAL: "approval",
    WaveState.FAILED: "gate",
}


@dataclass(frozen=True, slots=True)
class WaveStanding:
    """A wave of a campaign. ``number``: from 0; ``state``: as the API has it. Counts are None if they are unknown.

    ``until``: when its soak ends; None: it does not soak, or that is not known. ``approval``: its gate asks for one.
    """

    number: int
    name: str
    size: int
    sent: int
    state: str
    succeeded: int | None = None
    failed: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    approval: bool = False

    @classmethod
    def read(cls, number: int, entry: Mapping[str, Any]) -> WaveStanding:
        """Read an element of ``waves`` of ``GET …/campaigns/{id}``, which has this place in the list."""
        return cls(
            entry.get("number", number),
            entry.get("name") or f"wave {number + 1}",
            entry.get("size") or 0,
            entry.get("sent") or 0,
            entry.get("state") or "",
            entry.get("succeeded"),
            entry.get("failed"),
            _time(entry.get("since")),
            _time(entry.get("until")),
            bool(entry.get("approval")),
        )

    def text(self, waves: int, *, ended: bool = False) -> str:
        """Its name, its place among all ``waves``, and its state. ``ended``: the campaign has, so none is open."""
        state = self._closed if ended and self.state in _UNFINISHED else _STATES.get(self.state, self.state)
        return f"{self.name} ({self.number + 1} of {waves})" + (f": {state}" if state else "")

    @property
    def _closed(self) -> str:
        skipped = max(0, self.size - self.sent)
        return f"closed: {self.sent:,} sent" + (f", {skipped:,} skipped" if skipped else "")

    @property
    def waits_for(self) -> str | None:
        """What keeps the next wave closed though its own devices have finished: ``soak``, ``approval`` or ``gate``."""
        return _WAITS_FOR.get(self.state)

    @property
    def needs_role(self) -> str | None:
        """The role with which a person may open its gate now. None: it waits for no person."""
        if self.waits_for is None:
            return None
        asks = self.approval or self.state == WaveState.AWAITING_APPROVAL
        return (Role.APPROVER if asks else Role.OPERATOR).value

    def to_json(self, waves: int, *, ended: bool = False) -> dict[str, Any]:
        """The wave as an element of ``waves`` of the overview. ``ended``: the campaign has."""
        names = ("number", "name", "size", "sent", "succeeded", "failed", "state", "since", "until")
        shown = {name: getattr(self, name) for name in names}
        waits = {"waits_for": None, "needs_role": None, "until": None} if ended else {}
        text = self.text(waves, ended=ended)
        return {**shown, "text": text, "waits_for": self.waits_for, "needs_role": self.needs_role, **waits}


def read(entries: Sequence[Mapping[str, Any]]) -> tuple[WaveStanding, ...]:
    """Read ``waves`` of ``GET …/campaigns/{id}``."""
    return tuple(WaveStanding.read(number, each) for number, each in enumerate(entries))


def _time(value: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
