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
from dataclasses import dataclass, field
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


def _guarded(**keys: object) -> Json:
    """A guardrail that may not act before 30 devices have finished, and a first wave of twelve, of which one fails."""
    rule = {"name": "some", "threshold": "1%", "min_finished": 30, "action": "pause", **keys}
    return {"order": "id", "guardrails": [rule], "waves": WAVES, "pace": SLOWLY}


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
    cancelled: bool = False
    """Whether the campaign is cancelled under a halt, and so does not complete."""
    lease: str = "1"
    """Seconds for which a worker may keep a claimed batch."""


_CLAIM = "engine/dispatch/claim.py"
_GUARDRAILS = "engine/guardrails.py"
_QUEUE = "domain/policy/queue.py"
_TIME = "domain/policy/time_gates.py"
_WAVES = "domain/policy/waves.py"
_LATER = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()

MUTATIONS: Mapping[str, Mutation] = {
    "halt": Mutation(_TIME, "    if halt is None:", "    if True:", "halted since", acts=(Act.HALT,)),
    "freeze": Mutation(_TIME, "    if not in_force:", "    if True:", "a freeze was in force", acts=(Act.FREEZE,)),
    "halt, answers": Mutation(
        "engine/dispatch/permission.py", "    if not admission.sends or ", "    if ", "halt halt",
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
    "claimed before an edit": Mutation(
        "engine/dispatch/permission.py", " or campaign.row.policy_revision != revision:", ":",
        "which an edit replaced", lambda: {"guardrails": []}, acts=(Act.EDIT_ZONES,), lease="10",
        also=(("engine/dispatch/pipeline.py", "            await self._previous_recorded()\n",
               "            await self._previous_recorded()\n            await asyncio.sleep(5)\n"),),
    ),
    "cancel": Mutation(
        "engine/dispatch/cancel.py", "if is_valid_id(each.device_id)]", "if False]", "not ABORTED within",
        lambda: {"guardrails": []}, cancelled=True,
    ),
    "cancel under a halt": Mutation(  # over a slow link: the halt is asked for before the first command
        "engine/dispatch/cancel.py", "passes_brakes=True", "passes_brakes=False", "not ABORTED within",
        lambda: {"guardrails": []}, cancelled=True,
        also=(("engine/dispatch/permission.py", "    task = asyncio.ensure_future(sending)",
               "    if await _is(stopped):\n        abandon()\n    task = asyncio.ensure_future(sending)"),),
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
    "success_rate": Mutation(_WAVES, "_shortfall(rule, counts)) if each", '"") if each', "had succeeded",
                             lambda: _gate(success_rate="100%")),
    "soak": Mutation(_WAVES, "if now < until:", "if False:", "its soak of", lambda: _gate(soak="2s")),
    "gate, guardrail": Mutation(
        "domain/policy/guardrail.py", "1 if at_gate and rule.method is Method.RATIO else min_finished(rule)",
        "min_finished(rule)", "though guardrail some was over its threshold", lambda: _guarded(method="ratio"),
        also=((_GUARDRAILS, "[_of_group(trip, each.group, campaign).text] if trip is not None else []", "[]"),),
    ),
    "gate, sequential guardrail": Mutation(
        _GUARDRAILS, "[_of_group(trip, each.group, campaign).text] if trip is not None else []", "[]",
        "though guardrail some was over its threshold",
        lambda: _guarded(method="sequential", threshold="0.1%", alpha=0.3),
    ),
    "gate, while paused": Mutation(
        "engine/upkeep/waves.py", "if decision.opens and (running or row.promoted_by is not None):",
        "if decision.opens:", "while the campaign was paused",
        lambda: {**_guarded(min_finished=1), "waves": [{**WAVES[0], "gate": {"min_finished": 7}}, WAVES[1]]},
    ),
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
        "store/sql/cells.sql", "s.quarantined_at IS NULL", "true", "in quarantine",
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
    vars(playing).update(
        draw_document=lambda *_, **__: {"version": 1, **mutation.document()},
        MAX_SECONDS=20.0,
        SETTINGS={**playing.SETTINGS, "ROLLWAVE_LEASE": mutation.lease, "ROLLWAVE_PUBLISH_TIMEOUT": mutation.lease},
    )
    ends = "ABORTED" if mutation.cancelled else "COMPLETED"
    plan = Plan("north", DEVICES, 1, None, None, ends, all_bad=False, documented=True)
    schedule = Schedule(ALL_ACTS_FROM, (plan,), 2, (), (), 0, acts=mutation.acts, cancel_under_halt=mutation.cancelled)
    async with fresh_databases() as here:
        verdict = await playing.play(schedule, here)
    print(*verdict.problems, sep="\n")
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
