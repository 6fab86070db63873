"""Schedules of faults: some drawn from seeds, and one in which a worker dies at every failpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from rollwave.engine.failpoints import Failpoint
from tests.chaos.fresh_databases import fresh_databases
from tests.chaos.injected_faults import Effect, InjectedFault
from tests.chaos.play import Verdict, play
from tests.chaos.schedule import Plan, Schedule, draw

SEEDS = (2, 7014, 8005, 20001, 30013, 30109)
"""Seeds that have found errors, and others; the last three have policy documents. Add a seed that fails. `make chaos`
draws more."""

LANES = 3


async def test_random_schedules_of_faults_break_no_guarantee() -> None:
    seeds = iter(SEEDS)
    verdicts = [verdict for lane in await asyncio.gather(*(play_some(seeds) for _ in range(LANES))) for verdict in lane]
    assert {str(each.schedule): each.problems for each in verdicts if each.problems} == {}
    assert sum(each.deaths for each in verdicts) > 0
    assert len(verdicts) == len(SEEDS)


async def play_some(seeds: Iterator[int]) -> list[Verdict]:
    async with fresh_databases() as here:
        return [await play(draw(seed), here) for seed in seeds]


async def test_a_worker_that_dies_at_any_step_loses_nothing() -> None:
    plan = Plan("north", 100, rate=2, max_in_flight=None, canary_percent=10.0, ends="COMPLETED", all_bad=False)
    plans = plan, replace(plan, tenant="south", devices=50, documented=True)
    faults = tuple(InjectedFault(point, Effect.CRASH) for point in Failpoint)
    async with fresh_databases() as here:
        verdict = await play(Schedule(0, plans, 1, faults, (), abort_after=0), here)
    assert verdict.problems == []
    assert verdict.deaths == len(Failpoint)
