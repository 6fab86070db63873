"""Plays random schedules of faults for a given time: ``python -m tests.chaos --seconds 600``.

Prints the seed of each schedule that fails. ``--seed N`` plays that schedule again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.chaos.fresh_databases import fresh_databases
from tests.chaos.play import Verdict, play
from tests.chaos.schedule import DOCUMENTS_FROM, draw

EVERY = 25
"""Number of schedules between two lines of progress."""


class Tour:
    """Gives seeds to lanes, and collects the verdicts."""

    def __init__(self, seeds: Iterator[int], until: float) -> None:
        self._seeds, self._until = seeds, until
        self.verdicts: list[Verdict] = []

    async def lane(self) -> None:
        """Play one schedule after another on servers of its own."""
        async with fresh_databases() as here:
            for seed in self._seeds:
                self._note(await play(draw(seed), here))
                if time.monotonic() > self._until:
                    return

    def _note(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        if verdict.problems:
            print(f"VIOLATION  {verdict.schedule}", *verdict.problems, sep="\n    ", flush=True)
        elif len(self.verdicts) % EVERY == 0:
            print(f"{len(self.verdicts)} schedules, {len(self.bad)} with violations", flush=True)

    @property
    def bad(self) -> list[int]:
        """The seeds of schedules that failed."""
        return sorted(each.schedule.seed for each in self.verdicts if each.problems)

    def summary(self) -> str:
        """A summary of all schedules played."""
        seeds = [each.schedule.seed for each in self.verdicts]
        played = [each.schedule for each in self.verdicts]
        troubles = Counter(trouble.value for schedule in played for trouble, _ in schedule.troubles)
        troubles += Counter(trouble.fault.value for schedule in played for trouble in schedule.link)
        troubles += Counter(act.value for schedule in played for act in schedule.acts)
        troubles["long pause"] = sum(schedule.long_pause for schedule in played)
        troubles["programming error"] = sum(
            fault is not None and fault.is_programming_error for schedule in played for fault in schedule.faults
        )
        totals = ", ".join(
            f"{sum(getattr(each, name) for each in self.verdicts):,} {name}"
            for name in ("deaths", "commands", "reports", "snapshots", "events", "overviews")
        )
        return (
            f"{len(seeds)} schedules, seeds {min(seeds)} to {max(seeds)}: {len(self.bad)} with violations"
            + (f" (seeds {', '.join(map(str, self.bad))})" if self.bad else "")
            + f"\n{totals}\ntroubles: "
            + ", ".join(f"{number} {name}" for name, number in troubles.most_common())
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="start no schedule after so many (default: 60)")
    parser.add_argument("--schedules", type=int, help="play so many, however long it takes")
    parser.add_argument("--from-seed", type=int, help="count seeds up from here (default: a random one)")
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--documents", action="store_true", help="only schedules with campaigns under policy documents")
    parser.add_argument("--lanes", type=int, default=3, help="played at the same time (default: 3)")
    wanted = parser.parse_args()
    first = wanted.from_seed if wanted.from_seed is not None else random.randrange(10**6)
    first, step = (max(first, DOCUMENTS_FROM) | 1, 2) if wanted.documents else (first, 1)
    seeds: Iterator[int] = itertools.count(first, step)
    if wanted.seed is not None:
        seeds = iter([wanted.seed])
    elif wanted.schedules is not None:
        seeds = itertools.islice(seeds, wanted.schedules)
    tour = Tour(seeds, time.monotonic() + (wanted.seconds if wanted.schedules is None else float("inf")))

    async def lanes() -> None:
        if (task := asyncio.current_task()) is not None:  # Servers and workers end with this process.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await asyncio.gather(*(tour.lane() for _ in range(1 if wanted.seed is not None else wanted.lanes)))

    asyncio.run(lanes())
    print(tour.summary())
    return 1 if tour.bad else 0


if __name__ == "__main__":
    sys.exit(main())
