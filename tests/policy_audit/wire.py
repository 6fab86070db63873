"""Commands on the wire: none reaches a device long after a gate was closed to it, whoever sent it and why.

So answers to devices that ask, and commands that a worker had claimed before, are checked too. Nor does one that was
claimed before an edit reach a device long after the edit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from tests.policy_audit.claims import is_open
from tests.policy_audit.labels import read_labels
from tests.policy_audit.snapshot import EVER, Connection, Json

GRACE = timedelta(seconds=2)
"""From the time at which a gate closes to the last command: a second, and what this process needs to receive it."""

_STEPS = [GRACE * part / 4 for part in range(5)]


class Command(Protocol):
    """A command that a device received."""

    @property
    def tenant(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def campaign(self) -> int: ...
    @property
    def attempt(self) -> int | None: ...


@dataclass(frozen=True)
class Period:
    """A time from ``begin`` to ``end`` in which a gate was closed. ``why``: which one."""

    begin: datetime
    end: datetime
    why: str

    def covers(self, at: datetime) -> bool:
        """Whether the gate had been closed for so long that no command may arrive."""
        return self.begin + GRACE < at < self.end


@dataclass
class Wire:
    """What was in force when. ``documents``: by campaign, each from a time on, in the order of revisions.

    ``claims``: by campaign, device and attempt, the times of claims and the revision in force at each.
    """

    halts: dict[str, list[Period]] = field(default_factory=dict)
    freezes: dict[str, list[Period]] = field(default_factory=dict)
    documents: dict[int, list[tuple[datetime, Json]]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    claims: dict[tuple[int, str, int], list[tuple[datetime, int]]] = field(default_factory=dict)

    @classmethod
    async def read(cls, connection: Connection) -> Wire:
        """Read what operators did."""
        wire = cls(labels=await read_labels(connection))
        history = await connection.fetch("SELECT * FROM rollwave_brake_history ORDER BY id")
        for number, row in enumerate(history):
            if row["change"] != "set":
                continue
            key = row["tenant_id"], row["kind"], row["name"]
            later = (each for each in history[number + 1 :] if (each["tenant_id"], each["kind"], each["name"]) == key)
            lifted = next((each["at"] for each in later if each["change"] == "lifted"), EVER)
            of_kind = wire.halts if row["kind"] == "halt" else wire.freezes
            begin, end = max(row["at"], row["starts_at"]), min(lifted, row["ends_at"] or EVER)
            of_kind.setdefault(row["tenant_id"], []).append(Period(begin, end, f"{row['kind']} {row['name']}"))
        for row in await connection.fetch(
            "SELECT campaign_id, created_at, document::text AS text FROM ota_campaign_policies ORDER BY revision"
        ):
            found = wire.documents.setdefault(row["campaign_id"], [])
            found.append((row["created_at"], json.loads(row["text"])))
        for row in await connection.fetch("SELECT * FROM noted_claims WHERE revision IS NOT NULL ORDER BY at"):
            of = row["campaign_id"], row["device_id"], row["attempt"]
            wire.claims.setdefault(of, []).append((row["at"], row["revision"]))
        return wire

    def late(
        self, commands: Sequence[tuple[datetime, Command]], quarantines: Mapping[int, Mapping[str, Sequence[Period]]]
    ) -> Iterator[str]:
        """The commands that arrived too late. ``quarantines``: by campaign and device."""
        known: set[tuple[int, str, int | None]] = set()
        for at, each in commands:
            closed = [*self.halts.get(each.tenant, ()), *quarantines.get(each.campaign, {}).get(each.device, ())]
            documents = self._in_force(each.campaign, at)
            moments = [(document, at - step) for document in documents for step in _STEPS]
            if not any((document.get("schedule") or {}).get("ignore_freezes") for document in documents):
                closed += self.freezes.get(each.tenant, ())
            why = [period.why for period in closed if period.covers(at)]
            if documents and not any(self._may_go(document, each, moment) for document, moment in moments):
                why.append("a closed window")
            of = each.campaign, each.device, each.attempt
            if of not in known:  # the same attempt again may be the answer to a question, which no claim precedes
                why += self._claimed_before_an_edit(each, at)
            known.add(of)
            if why:
                yield f"{each.device} received a command of campaign {each.campaign} at {at}: {', '.join(why)}"

    def _in_force(self, campaign: int, at: datetime) -> list[Json]:
        """The documents that were in force at the time, or shortly before."""
        found: list[Json] = []
        until = EVER
        for begin, document in reversed(self.documents.get(campaign, [])):
            if begin <= at and until >= at - GRACE:
                found.append(document)
            until = begin
        return found

    def _claimed_before_an_edit(self, command: Command, at: datetime) -> Iterator[str]:
        claims = self.claims.get((command.campaign, command.device, command.attempt or 0), [])
        claimed = [(when, revision) for when, revision in claims if when <= at]
        if not claimed:
            return
        (when, revision), revisions = claimed[-1], self.documents.get(command.campaign, [])
        if revision < len(revisions) and revisions[revision][0] + GRACE < at:
            yield f"claimed at {when} by revision {revision}, which an edit replaced at {revisions[revision][0]}"

    def _may_go(self, document: Json, command: Command, at: datetime) -> bool:
        zone = self.labels.get(command.tenant, {}).get(command.device, {}).get("time_zone")
        return is_open(document.get("schedule") or {}, zone, at)
