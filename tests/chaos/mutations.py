"""Shows that the auditor sees each kind of violation: ``python -m tests.chaos.mutations``.

Each mutation removes one rule from a copy of the engine. A schedule is then played with this engine, without other
faults, and the auditor must find a violation of that kind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.chaos import play as playing
from tests.chaos.documents import Act, Json
from tests.chaos.fresh_databases import fresh_databases
from tests.chaos.schedule import ALL_ACTS_FROM, Plan, Schedule

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "src" / "rollwave"
DEVICES = 40
MOST_SECONDS = 120

WAVES: list[Json] = [{"name": "canary", "size": 12}, {"name": "rest"}]
SLOWLY = {"per_minute": 600}
QUARANTINES: Json = {
    "name": "sites",
    "threshold": "5%",
    "scope": "segment",
    "per": ["hardware_revision"],
    "action": "quarantine",
}


def _gate(**gate: object) -> Json:
    return {"guardrails": [], "waves": [{**WAVES[0], "gate": gate}, WAVES[1]]}


def _window(seconds: float, lasts: float, **more: object) -> Json:
    """A document whose windows close after a while, for some seconds."""
    begin = datetime.now(UTC) + timedelta(seconds=seconds)
    deny = {"name": "deny", "kind": "deny", "start": f"{begin.isoformat()}"}
    deny["end"] = (begin + timedelta(seconds=lasts)).isoformat()
    return {"guardrails": [], "pace": SLOWLY, "schedule": {"windows": [deny]}, **more}


def _zones() -> Json:
    now = datetime.now(UTC)
    window = {"name": "local", "kind": "allow", "cron": f"{now.minute} {now.hour} * * *", "duration": "1h"}
    return {"guardrails": [], "schedule": {"windows": [{**window, "time_zone": "device"}]}}


@dataclass(frozen=True)
class Mutation:
    """Replaces ``old`` by ``new`` in a file of the engine. ``finds``: a part of what the auditor must say."""

    file: str
    old: str
    new: str
    finds: str
    document: Callable[[], Mapping[str, Any]] = field(default=lambda: {"guardrails": [], "pace": SLOWLY})
    acts: tuple[Act, ...] = (Act.WAIT, Act.WAIT)
    also: tuple[tuple[str, str, str], ...] = ()
    """Other replacements that belong to it: file, old text, new text."""


_CLAIM = "engine/dispatch/claim.py"
_QUEUE = "domain/policy/queue.py"
_TIME = "domain/policy/time_gates.py"
_WAVES = "domain/policy/waves.py"
_LATER = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()

MUTATIONS: Mapping[str, Mutation] = {
    "halt": Mutation(_TIME, "    if halt is None:", "    if True:", "halted since", acts=(Act.HALT,)),
    "freeze": Mutation(_TIME, "    if not in_force:", "    if True:", "a freeze was in force", acts=(Act.FREEZE,)),
    "halt, answers": Mutation(
        "engine/dispatch/permission.py", "    if not admission.sends:", "    if False:", "halt halt",
        acts=(Act.HALT,) * 3,
    ),
    "start": Mutation(
        _TIME, "rule.start is not None and now < rule.start", "False", "the schedule starts",
        lambda: {"guardrails": [], "schedule": {"start": _LATER}},
    ),
    "window": Mutation(
        _TIME, "    if found.open:", "    if True:", "the windows were closed", lambda: _window(0, 4)
    ),
    "window of a zone": Mutation(
        "store/placing_statements.py", '"l.time_zone" if', "\"'UTC'::text\" if", "the windows were closed", _zones
    ),
    "window, again": Mutation(
        "engine/closed_segments.py", "if window is not None and not window.open:", "if False:",
        "the windows were closed",
        lambda: _window(2.5, 8, pace={"per_minute": 1500}, retry={"on": ["reported", "rejected"], "max_attempts": 2,
                                                                  "delay": "2s"}),
        acts=(Act.WAIT,) * 4,
    ),
    "labels of a segment": Mutation(
        "domain/policy/placing.py", "tuple(sorted(per))", "tuple(sorted(per))[:1]", "and its labels are",
        lambda: {"guardrails": [{**QUARANTINES, "per": ["hardware_revision", "site"]}]},
    ),
    "size of a wave": Mutation(
        "domain/policy/placing.py", "else each.size for each", "else each.size and each.size + 3 for each",
        "wave 0 has", _gate,
    ),
    "wave": Mutation(
        _QUEUE, "ready += group.waiting", "ready += group.waiting + group.in_later_waves", "and the present one was",
        lambda: _gate(soak="4s"), also=((_CLAIM, "campaign.wave", "(campaign.wave + 1)"),),
    ),
    "min_finished": Mutation(_WAVES, "counts.ended + counts.skipped < needed", "counts.ended < 1", "had finished",
                             lambda: _gate(min_finished=10)),
    "success_rate": Mutation(_WAVES, ":= _shortfall(rule, counts)", ':= ""', "had succeeded",
                             lambda: _gate(success_rate="100%")),
    "soak": Mutation(_WAVES, "if now < until:", "if False:", "its soak of", lambda: _gate(soak="2s")),
    "approval": Mutation(_WAVES, "if rule.approval:", "if False:", "without an approval", lambda: _gate(approval=True)),
    "in flight": Mutation(
        _QUEUE, "pace.in_flight(rule.max_in_flight, queue.in_flight)", "pace.in_flight(None, 0)", "are in flight, of 2",
        lambda: {"guardrails": [], "pace": {"max_in_flight": 2}},
    ),
    "in flight of a wave": Mutation(
        _QUEUE, "if queue.wave_max_in_flight is not None:", "if False:", "of wave 0 are in flight",
        lambda: {"guardrails": [], "waves": [{**WAVES[0], "max_in_flight": 1}, WAVES[1]]},
    ),
    "bytes": Mutation(
        _QUEUE, "number=queue.in_flight", "number=0", "downloads of 1000 bytes",
        lambda: {"guardrails": [], "pace": {"bytes": {"in_flight": "2500B"}}},
    ),
    "pace": Mutation(
        _QUEUE, "pace.step_of(rate.per_minute", "pace.step_of(3 * rate.per_minute", "got their first command in",
        lambda: {"guardrails": [], "pace": {"per_minute": 240}},
    ),
    "ramp": Mutation(
        "domain/policy/pace.py", "times = succeeded //", "times = 9 + succeeded //", "got their first command in",
        lambda: {"guardrails": [], "pace": {"per_minute": 2400, "ramp": {"from": 120, "factor": 2,
                                                                        "every_succeeded": 10}}},
    ),
    "budget": Mutation(
        "domain/policy/budgets.py", "tuple(each.max_in_flight for", "tuple(1000 for", "are in flight, of 1",
        lambda: {"guardrails": [], "budgets": [{"name": "one", "per": "site", "max_in_flight": 1}]},
    ),
    "guardrail, ratio": Mutation(
        "domain/policy/guardrail.py", "if numbers.failed <= rule.threshold.fraction * numbers.finished:", "if True:",
        "has not tripped", lambda: {"guardrails": [{"name": "some", "threshold": "1%", "action": "pause"}]},
    ),
    "guardrail, sequential": Mutation(
        "domain/policy/guardrail.py", "if not sequential.trips(", "if True or not sequential.trips(", "has not tripped",
        lambda: {"guardrails": [{"name": "some", "threshold": "0.1%", "method": "sequential", "alpha": 0.3,
                                 "action": "pause"}]},
    ),
    "guardrail, count": Mutation(
        "domain/policy/guardrail.py", "return failure.reason in rule.count and", "return", "finished,",
        lambda: {"guardrails": [{"name": "some", "threshold": "50%", "count": ["no_answer"], "action": "pause"}]},
    ),
    "quarantine, not set": Mutation(
        "engine/guardrails.py", "if trip.action is not TripAction.QUARANTINE:", "if True:", "is under quarantine",
        lambda: {"guardrails": [QUARANTINES], "pace": SLOWLY},
    ),
    "quarantine, not asked": Mutation(
        "store/sql/cells.sql", "AND s.quarantined_at IS NULL", "", "in quarantine",
        lambda: {"guardrails": [QUARANTINES], "pace": SLOWLY},
    ),
    "quarantine, forgotten": Mutation(
        "engine/guardrails.py", "store.trip(connection, campaign, tripped.test, event.to_detail())",
        "store.begin_anew(connection, campaign, [tripped.test])", "began anew without a reason",
        lambda: {"guardrails": [QUARANTINES], "pace": SLOWLY},
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MUTATIONS)}; default: all")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.here:
        return asyncio.run(_play(MUTATIONS[wanted.here]))
    unseen = [name for name in wanted.names or MUTATIONS if not _seen(name, MUTATIONS[name])]
    print(f"not seen: {', '.join(unseen)}" if unseen else "all were seen")
    return 1 if unseen else 0


def _seen(name: str, mutation: Mutation) -> bool:
    with tempfile.TemporaryDirectory(prefix="rollwave-mutation-") as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ENGINE.parent, copy)
        for file, old, new in ((mutation.file, mutation.old, mutation.new), *mutation.also):
            text = (copy / "rollwave" / file).read_text()
            assert old in text, f"{name}: {file} has no {old}"
            (copy / "rollwave" / file).write_text(text.replace(old, new))
        environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}"}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.mutations", "--here", name],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=2 * MOST_SECONDS, check=False,
        )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if mutation.finds in line]
    shown = found[0] if found else f"NOT SEEN: {done.stdout[-1500:]}{done.stderr[-500:]}"
    print(f"{name} ({time.monotonic() - began:.0f} s): {shown[:300]}", flush=True)
    return bool(found)


async def _play(mutation: Mutation) -> int:
    """Play a schedule with the engine of this process."""
    vars(playing).update(draw_document=lambda *_, **__: {"version": 1, **mutation.document()}, MAX_SECONDS=20.0)
    plan = Plan("north", DEVICES, 1, None, None, "COMPLETED", all_bad=False, documented=True)
    schedule = replace(Schedule(ALL_ACTS_FROM, (plan,), 2, (), (), abort_after=0), acts=mutation.acts)
    async with fresh_databases() as here:
        verdict = await playing.play(schedule, here)
    print(*verdict.problems, sep="\n")
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
