"""One task for each campaign, and a maximum of tasks that work at the same time."""

from __future__ import annotations

import asyncio

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.keyed_tasks import KeyedTasks
from tests.support import eventually

ONE, TWO, THREE = (CampaignRef(TenantId("north"), CampaignId(number), CampaignStatus.RUNNING) for number in (1, 2, 3))


class Work:
    """Work that continues until it is released."""

    def __init__(self, *, in_parallel: int = 2) -> None:
        self.tasks = KeyedTasks(self.do, in_parallel=in_parallel)
        self.begun: list[CampaignRef] = []
        self.finished: list[CampaignRef] = []
        self.go_on = asyncio.Event()

    async def do(self, ref: CampaignRef) -> None:
        async with self.tasks.turn(ref):
            self.begun.append(ref)
            await self.go_on.wait()
            self.finished.append(ref)

    async def has_begun(self, *refs: CampaignRef) -> None:
        await eventually(lambda: self.begun == list(refs), timeout=5, what=f"{refs} have begun")


async def test_a_campaign_has_one_task_at_a_time() -> None:
    work = Work()
    work.tasks.start(ONE)
    work.tasks.start(ONE)
    await work.has_begun(ONE)
    work.tasks.start(ONE)
    work.go_on.set()
    await work.tasks.drain()
    assert work.finished == [ONE]
    assert ONE not in work.tasks
    work.tasks.start(ONE)
    await work.tasks.drain()
    assert work.finished == [ONE, ONE], "it may start again after its end"


async def test_no_more_campaigns_than_allowed_are_worked_on_at_the_same_time() -> None:
    work = Work(in_parallel=2)
    for ref in (ONE, TWO, THREE):
        work.tasks.start(ref)
    await work.has_begun(ONE, TWO)
    assert THREE in work.tasks
    work.go_on.set()
    await work.tasks.drain()
    assert work.finished == [ONE, TWO, THREE]


async def test_work_requested_while_it_runs_is_repeated_once() -> None:
    work = Work()
    work.tasks.start_or_repeat(ONE)
    await work.has_begun(ONE)
    work.tasks.start_or_repeat(ONE)
    work.tasks.start_or_repeat(ONE)
    work.go_on.set()
    await work.tasks.drain()
    assert work.finished == [ONE, ONE]


async def test_work_requested_twice_before_it_begins_runs_once() -> None:
    work = Work(in_parallel=1)
    work.tasks.start_or_repeat(ONE)
    work.tasks.start_or_repeat(TWO)
    await work.has_begun(ONE)
    work.tasks.start_or_repeat(TWO)
    work.go_on.set()
    await work.tasks.drain()
    assert work.finished == [ONE, TWO]


async def test_cancelling_ends_every_task_and_repeats_none() -> None:
    work = Work(in_parallel=1)
    work.tasks.start_or_repeat(ONE)
    work.tasks.start(TWO)
    await work.has_begun(ONE)
    work.tasks.start_or_repeat(ONE)
    await work.tasks.cancel()
    assert (ONE in work.tasks, TWO in work.tasks) == (False, False)
    assert (work.begun, work.finished) == ([ONE], [])
    work.go_on.set()
    work.tasks.start(ONE)
    await work.tasks.drain()
    assert work.finished == [ONE], "it can be used again"


async def test_a_task_that_is_cancelled_before_it_began_is_not_waited_for() -> None:
    work = Work()
    work.tasks.start(ONE)
    async with asyncio.timeout(5):
        await work.tasks.cancel()
        await work.tasks.drain()
    assert ONE not in work.tasks
    assert work.begun == []


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    """Its work is not repeated, though this was requested."""
    cancelled, calls = 0, 0
    begun = asyncio.Event()

    async def ignore_first_cancellation(_: CampaignRef) -> None:
        nonlocal cancelled, calls
        calls += 1
        while cancelled < 2:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1

    tasks = KeyedTasks(ignore_first_cancellation, in_parallel=1)
    tasks.start(ONE)
    await begun.wait()
    tasks.start_or_repeat(ONE)
    await asyncio.wait_for(tasks.cancel(), 10)
    assert (ONE in tasks, calls) == (False, 1)
