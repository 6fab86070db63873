"""The numbers of a guardrail's test: devices in the order in which they were sent to, in buckets of that order.

Each device that a test covers is one trial. A campaign numbers its devices from 1 as it sends to them, and a bucket is
a range of these numbers: so one number per device serves every test, also one that covers only some of the devices.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rollwave.domain.policy.sequential import Prefix

BUCKETS_WANTED = 40
NARROWEST_BUCKET, WIDEST_BUCKET = 25, 1000
"""Minimum and maximum number of devices of a bucket that is full."""


class Bucket(NamedTuple):
    """The devices of a test from dispatch number ``first`` up to the next bucket.

    ``dispatched``: how many of them were sent to; ``finished``: how many of these have finished for good; ``failed``:
    how many of those count as failures.
    """

    first: int
    dispatched: int = 0
    finished: int = 0
    failed: int = 0


def width(dispatched: int) -> int:
    """The number of devices of the bucket that begins after ``dispatched`` devices of the test."""
    return max(NARROWEST_BUCKET, min(WIDEST_BUCKET, dispatched // BUCKETS_WANTED))


def draw(last: Bucket | None, dispatched: int, numbers: Iterable[int]) -> list[Bucket]:
    """Put devices with these dispatch ``numbers`` into the ``last`` bucket, and into new ones when it is full.

    ``dispatched``: number of the test's devices before these. Returns the buckets that changed or are new.
    """
    changed: list[Bucket] = []
    room = 0 if last is None else width(dispatched - last.dispatched) - last.dispatched
    added = 0  # to the last bucket; a bucket is made once and not for each device
    for number in sorted(numbers):
        # A repair may have lowered the count of devices sent to: then a number is drawn again.
        if last is None or (room <= 0 and number > last.first):
            if last is not None and added:
                changed.append(last._replace(dispatched=last.dispatched + added))
            last, room, added = Bucket(number), width(dispatched), 0
        added += 1
        dispatched, room = dispatched + 1, room - 1
    if last is not None and added:
        changed.append(last._replace(dispatched=last.dispatched + added))
    return changed


class EndedTrial(NamedTuple):
    """A device with a dispatch ``number`` has ``finished`` (it had not before), or now counts as ``failed``."""

    number: int
    finished: bool
    failed: bool


def end(buckets: Sequence[Bucket], ended: Iterable[EndedTrial], successes: Iterable[int] = ()) -> dict[int, Bucket]:
    """Count devices that ended in their buckets, ordered by number. Returns those that changed, by their index.

    ``successes``: the numbers of more devices, which have finished and do not count as failed.
    """
    starts = [each.first for each in buckets]
    finished, failed = [0] * len(starts), [0] * len(starts)
    touched = set()
    for each in ended:
        index = bisect_right(starts, each.number) - 1
        if index >= 0:  # otherwise it was sent to before these buckets
            touched.add(index)
            finished[index] += each.finished
            failed[index] += each.failed
    numbers = sorted(successes)
    bounds = [*(bisect_left(numbers, start) for start in starts), len(numbers)]
    for index, (first, last) in enumerate(pairwise(bounds)):
        if last > first:
            touched.add(index)
            finished[index] += last - first
    return {index: _with(buckets[index], finished[index], failed[index]) for index in touched}


def _with(bucket: Bucket, finished: int, failed: int) -> Bucket:
    """Add devices to a bucket. One that fails has finished, and no more devices fail than were sent to."""
    failures = min(bucket.failed + failed, bucket.dispatched)
    return Bucket(bucket.first, bucket.dispatched, max(bucket.finished + finished, failures), failures)


def prefixes(before: Prefix, buckets: Iterable[Bucket]) -> list[Prefix]:
    """The devices up to the end of each bucket. ``before``: the devices of the buckets before these."""
    found = []
    for each in buckets:
        before = Prefix(
            before.sent + each.dispatched,
            before.failed + each.failed,
            before.in_flight + max(0, each.dispatched - each.finished),
        )
        found.append(before)
    return found
