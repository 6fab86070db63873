"""A campaign at one moment, as the API's overview describes it. What the numbers mean is decided by the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollwave.client.text import visible
from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.domain.execution import TERMINAL, ExecutionStatus


@dataclass(frozen=True, slots=True)
class Gauge:
    """A guardrail. ``used``: how near it is to tripping, 0 to 1."""

    used: float
    tripped: bool
    text: str


@dataclass(frozen=True, slots=True)
class WaveLine:
    """A wave. ``done``: its devices that have succeeded or failed; None: these are not counted for each wave.

    ``until``: when its soak ends; None: it does not soak.
    """

    name: str
    size: int
    sent: int
    done: int | None
    state: str
    text: str
    needs_role: str | None
    until: datetime | None = None

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1; or sent, where it is not known how much is done."""
        return (self.sent if self.done is None else self.done) / self.size if self.size else 0.0

    @property
    def numbers(self) -> str:
        """How much of it is done or sent, in words."""
        if self.done is None:
            return f"{self.sent:,} of {self.size:,} sent"
        return f"{self.done:,} of {self.size:,} finished"


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of devices and the text that says which, such as a cause of failures or a reason to wait."""

    devices: int
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One campaign at one moment. ``by_state`` counts its devices and names every state.

    ``level``: ok, watch or stop. ``rate``: finished devices per minute; None: the campaign does not send.
    ``rules``: its policy in one line; empty: unknown.
    """

    id: int
    name: str
    status: CampaignStatus
    reason: str
    version: str
    from_versions: Sequence[str]
    level: str
    headline: str
    by_state: Mapping[ExecutionStatus, int]
    rate: float | None
    forecast: str
    waves: Sequence[WaveLine] = ()
    guardrails: Sequence[Gauge] = ()
    causes: Sequence[Amount] = ()
    waiting: Sequence[Amount] = ()
    rules: str = ""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Snapshot:
        """Read the response of ``GET …/campaigns/{id}/overview``. Texts are safe to print."""
        headline = document["headline"]
        return cls(
            id=document["campaign_id"],
            name=visible(document["name"] or f"campaign {document['campaign_id']}"),
            status=CampaignStatus(document["status"]),
            reason=visible(document["status_reason"] or ""),
            version=visible(document["version"] or ""),
            from_versions=[visible(each["version"] or "unknown") for each in document["from_versions"]],
            level=headline["level"],
            headline=visible(headline["text"]),
            by_state={each: int(document["devices"].get(each, 0)) for each in ExecutionStatus},
            rate=document["rate_per_minute"],
            forecast=visible(document["forecast"]["text"] or ""),
            waves=[_wave(each) for each in document["waves"]],
            guardrails=[
                Gauge(float(each["used"]), bool(each["tripped"]), visible(each["text"]))
                for each in document["guardrails"]
            ],
            causes=_amounts(document["causes"]),
            waiting=_amounts(document["waiting"]),
            rules=visible(document.get("rules") or ""),
        )

    @property
    def total(self) -> int:
        return sum(self.by_state.values())

    @property
    def succeeded(self) -> int:
        return self.by_state[ExecutionStatus.SUCCESS]

    @property
    def failed(self) -> int:
        return self.by_state[ExecutionStatus.FAILED]

    @property
    def over(self) -> bool:
        """Whether the campaign is in a final state. Devices in progress may still finish after an abort."""
        return self.status in FINAL

    @property
    def guardrails_to_show(self) -> Sequence[Gauge]:
        """The guardrails, the most used one first. Of a campaign that is over, only those that have tripped."""
        return [each for each in self.guardrails if each.tripped or not self.over]

    @property
    def counters_final(self) -> bool:
        """Whether the counters are final."""
        return self.over and sum(self.by_state[each] for each in TERMINAL) == self.total

    def versions(self, arrow: str) -> str:
        """The versions that the devices come from and the one that they get."""
        return f"{', '.join(self.from_versions)} {arrow} {self.version}" if self.from_versions else self.version


def _wave(entry: Mapping[str, Any]) -> WaveLine:
    return WaveLine(
        name=visible(entry["name"] or f"wave {entry['number'] + 1}"),
        size=entry["size"] or 0,
        sent=entry["sent"] or 0,
        done=None if entry["succeeded"] is None else entry["succeeded"] + (entry["failed"] or 0),
        state=entry["state"] or "",
        text=visible(entry["text"]),
        needs_role=entry["needs_role"],
        until=datetime.fromisoformat(entry["until"]) if entry.get("until") else None,
    )


def _amounts(entries: Sequence[Mapping[str, Any]]) -> list[Amount]:
    return [Amount(each["devices"], visible(each["text"])) for each in entries]


def counts(snapshot: Snapshot) -> str:
    """The number of devices in each state that has any, in the order in which a device passes through them."""
    return " · ".join(f"{count:,} {state}" for state, count in snapshot.by_state.items() if count) or "no devices"
