"""Every line of the table: what is measured, in which unit, and what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BROKERS = ("mosquitto", "iotcore")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. ``key`` is what measures call it; a line without a target is there to be compared with."""

    group: str
    key: str
    what: str
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    of_runs: Literal["median", "max"] = "median"

    def met(self, value: float) -> bool:
        """Whether ``value`` is as good as the target, or better. Without a target, anything is."""
        if self.target is None:
            return True
        return value >= self.target if self.better == "higher" else value <= self.target


def _rates(broker: str) -> list[Line]:
    def line(key: str, what: str, target: float | None = None, unit: str = "/s") -> Line:
        return Line(f"Rates over {broker}", f"{key}/{broker}", what, unit, target, "higher")

    return [
        line("publish.bare", "publish, one socket alone"),
        line("dispatch.bare", "dispatch, bare limit chained"),
        line("dispatch", "dispatch, Rollwave", 10_000),
        line("dispatch.ratio", "dispatch, of the bare limit", 0.8, "ratio"),
        line("dispatch.naive", "dispatch, naive design"),
        line("dispatch.times", "dispatch, Rollwave over naive", unit="x"),
        line("ingest.bare", "ingestion, bare limit chained"),
        line("ingest", "ingestion, Rollwave", 10_000),
        line("ingest.ratio", "ingestion, of the bare limit", 0.8, "ratio"),
        line("ingest.naive", "ingestion, naive design"),
        line("ingest.times", "ingestion, Rollwave over naive", unit="x"),
    ]


_FLAT_GROUP = "Flat: time in a larger campaign over time in the smallest"
_FLAT = {
    "flat.claim": "a claimed batch",
    "flat.mark": "a marked batch",
    "flat.apply": "an applied batch",
    "flat.campaign": "campaign page",
    "flat.devices": "device page, first",
    "flat.deep": "device page, deep",
    "flat.status": "device page, by status",
    "flat.rare": "device page, by a rare status",
    "flat.conduct": "completion check",
    "flat.due": "which campaigns are due",
}

_POLICY_GROUP = "Policy documents: rate over that of flat columns"
_VARIANTS = {
    "nothing": "an empty document",
    "everything": "every rule, one segment",
    **{f"{number}": f"{number:,} segments" for number in (10, 1000, 10_000)},
    "budget": "a budget of 1 for 3 sites in 10 devices",
}


_PARTED = {"10", "1000", "10000", "budget"}
"""Variants whose devices are not one queue."""


def _policy() -> list[Line]:
    words = {"dispatch": "dispatch", "ingest": "ingestion"}
    lines = [Line(_POLICY_GROUP, f"policy.{key}.flat", f"{what}, flat columns", "/s") for key, what in words.items()]
    for name, of_variant in _VARIANTS.items():
        lines += [
            Line(_POLICY_GROUP, f"policy.dispatch.{name}", f"dispatch, {of_variant}", "ratio",
                 0.5 if name in _PARTED else 0.95, "higher"),
            Line(_POLICY_GROUP, f"policy.ingest.{name}", f"ingestion, {of_variant}", "ratio",
                 None if name in _PARTED else 0.95, "higher"),
        ]  # fmt: skip
    return lines


PLAN: Sequence[Line] = (
    Line("Rates", "claim.bare", "claim, SQL alone", "/s", better="higher"),
    Line("Rates", "apply.bare", "apply, SQL alone", "/s", better="higher"),
    *(line for broker in BROKERS for line in _rates(broker)),
    Line("Reports", "reports.p50", "delivery to commit at half load, p50", "ms"),
    Line("Reports", "reports.p99", "delivery to commit at half load, p99", "ms", 200),
    Line("Reports", "chatter.written", "rows written a report of chatter", "ratio", 0.5),
    Line("Reports", "tenants.one", "ingestion, one tenant", "/s", better="higher"),
    Line("Reports", "tenants.many", "ingestion, many tenants", "/s", better="higher"),
    Line("Reports", "tenants.ratio", "many tenants, of one tenant's rate", "ratio", 0.5, "higher"),
    Line("Start and pace", "start.median", "start to first command on the wire, median", "ms", 100),
    Line("Start and pace", "start.max", "start to first command on the wire, slowest", "ms", 100),
    Line("Start and pace", "pace.slow", "largest tenth of a tick, 1,000 a tick", "ratio", 0.2),
    Line("Start and pace", "pace.fast", "largest tenth of a tick, 10,000 a tick", "ratio", 0.2),
    Line("Stop", "trip.p50", "report to ABORTED under full load, p50", "ms"),
    Line("Stop", "trip.p99", "report to ABORTED under full load, p99", "ms", 250),
    Line("Stop", "abort.call", "abort of a million PENDING, the call", "ms", of_runs="max"),
    Line("Stop", "abort.last", "abort, from its call to the last command on the wire", "ms", 500, of_runs="max"),
    Line("Stop", "abort.skipped", "abort to a million SKIPPED", "s"),
    Line("Stop", "halt.last", "halt, from its call to the last command, slowest of 20", "ms", 1000, of_runs="max"),
    *(Line(_FLAT_GROUP, key, what, "ratio", 1.5) for key, what in _FLAT.items()),
    Line(_FLAT_GROUP, "windows.claim", "a claimed batch, nine tenths outside their window", "ratio", 1.5),
    Line(_FLAT_GROUP, "flat.verify", "reading every row, before COMPLETED and every 45 s", "ratio"),
    *_policy(),
    Line("Why it waits, largest campaign", "waiting", "what the devices of a campaign wait for", "ms", 50),
    Line("Why it waits, largest campaign", "explain", "what one device waits for", "ms", 50),
    Line("Console", "console.paint", "campaign of a million devices, first paint", "ms", 1000),
    Line("Console", "console.paint.flat", "first paint, over a campaign of a thousand", "ratio", 1.5),
    Line("Console", "console.weight", "campaign page with all it loads, compressed", "kB", 60),
    Line("Console", "console.overview", "overview of a campaign of a million devices", "ms", 50),
    Line("Console", "console.overview.flat", "overview, over a campaign of a thousand", "ratio", 1.5),
    Line("Console", "console.list", "list of 100 campaigns with their verdicts", "ms", 50),
    Line("Console", "live.reads", "reads of a campaign with 1,000 viewers, over one viewer", "ratio", 1.1),
    Line("A million devices", "create.seconds", "create the campaign", "s", 30),
    Line("A million devices", "targeting", "target by a policy with a selector and three labels", "s", 60),
    Line("A million devices", "create.others", "other API requests meanwhile, p99", "ms", 250),
    Line("A million devices", "bloat.heap", "table after the campaign, of its size before", "ratio", 2),
    Line("A million devices", "bloat.indexes", "indexes after the campaign, of their size before", "ratio", 2),
    Line("Memory of a worker", "memory.load", "peak at full load", "MB", 200, of_runs="max"),
    Line("Memory of a worker", "memory.large", "peak with the largest campaign", "MB", 200, of_runs="max"),
    Line("Memory of a worker", "memory.growth", "growth an hour of steady load", "MB", 2),
    *(
        Line(
            "More workers",
            f"scale.{what}.{number}",
            f"{words}, {number} worker{'s' * (number > 1)}",
            "/s",
            better="higher",
        )
        for what, words in {"dispatch": "dispatch of four campaigns", "ingest": "ingestion"}.items()
        for number in (1, 2, 4)
    ),
)

BY_KEY = {line.key: line for line in PLAN}
