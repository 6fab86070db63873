"""The figures of docs/reference/guardrails.md, simulated with fixed seeds: false alarms, and devices until a trip."""

from __future__ import annotations

from random import Random
from statistics import median

import pytest

from rollwave.domain.policy.sequential import Prefix, is_evidence, trips
from rollwave.domain.policy.trials import Bucket, EndedTrial, draw, end, prefixes

THRESHOLD, ALPHA = 0.05, 0.05


def devices_until_a_trip(random: Random, rate: float, devices: int) -> int | None:
    """The devices sent to until the test trips, if each has ended before the next is sent to. None: it does not."""
    failed = 0
    for sent in range(1, devices + 1):
        if random.random() < rate:
            failed += 1  # only a failure can trip it
            if is_evidence(failed, sent, THRESHOLD, ALPHA):
                return sent
    return None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_false_alarms_at_a_rate_equal_to_the_threshold_stay_below_alpha(seed: int) -> None:
    random = Random(seed)
    alarms = sum(devices_until_a_trip(random, THRESHOLD, 5000) is not None for _ in range(500))
    assert 0.02 <= alarms / 500 <= 0.055, "3 to 5 %: alpha, with the noise of 500 runs"


@pytest.mark.parametrize(("times", "least", "most"), [(2, 125, 165), (3, 40, 50), (10, 4, 6)])
def test_a_higher_rate_trips_after_some_devices(times: int, least: int, most: int) -> None:
    random = Random(7)
    found = [devices_until_a_trip(random, THRESHOLD * times, 50_000) or 50_000 for _ in range(1001)]
    assert least <= median(found) <= most


class Campaign:
    """A campaign that sends to one device a second. Failures report after a minute, successes after ten."""

    def __init__(self, random: Random, rate: float, devices: int) -> None:
        happened = []
        for number in range(1, devices + 1):
            failed = random.random() < rate
            took = (60 if failed else 600) * random.uniform(0.5, 1.5)
            happened += [(float(number), number, None), (number + took, number, failed)]
        self.buckets: list[Bucket] = []
        self.finished = self.failed = 0
        self.finished_trip = self.prefixes_trip = False
        for _, number, outcome in sorted(happened, key=lambda each: each[0]):
            if outcome is None:
                self._send(number)
            else:
                self._end(number, failed=outcome)

    def _send(self, number: int) -> None:
        for each in draw(self.buckets[-1] if self.buckets else None, number - 1, [number]):
            if self.buckets and self.buckets[-1].first == each.first:
                self.buckets.pop()
            self.buckets.append(each)

    def _end(self, number: int, *, failed: bool) -> None:
        self.finished, self.failed = self.finished + 1, self.failed + failed
        changed = end(self.buckets, [EndedTrial(number, finished=True, failed=failed)])
        for index, each in changed.items():
            self.buckets[index] = each
        if failed:
            self.finished_trip |= is_evidence(self.failed, self.finished, THRESHOLD, ALPHA)
            first = min(changed)
            self.prefixes_trip |= trips(prefixes(Prefix(0, 0), self.buckets)[first:], THRESHOLD, ALPHA)


def test_finished_devices_as_the_denominator_raise_false_alarms_and_prefixes_do_not() -> None:
    random = Random(5)
    runs = [Campaign(random, THRESHOLD, 800) for _ in range(120)]
    assert sum(each.finished_trip for each in runs) / 120 > 0.95, "failures report sooner than successes"
    assert sum(each.prefixes_trip for each in runs) / 120 <= ALPHA


def test_prefixes_of_buckets_find_a_bad_firmware_while_devices_are_in_flight() -> None:
    random = Random(6)
    assert all(Campaign(random, 3 * THRESHOLD, 800).prefixes_trip for _ in range(40))


@pytest.mark.parametrize("seed", [1, 2])
def test_no_order_of_reports_raises_more_false_alarms(seed: int) -> None:
    random = Random(seed)
    alarms = 0
    for _ in range(150):
        outcomes = {number: random.random() < THRESHOLD for number in range(1, 601)}
        buckets = draw(None, 0, outcomes)
        # The worst order: all failures first. In any order, each prefix ends with the same numbers.
        order = sorted(outcomes, key=lambda number: (not outcomes[number], random.random()))
        tripped = False
        for number in order:
            changed = end(buckets, [EndedTrial(number, finished=True, failed=outcomes[number])])
            for index, each in changed.items():
                buckets[index] = each
            if outcomes[number]:
                tripped |= trips(prefixes(Prefix(0, 0), buckets)[min(changed) :], THRESHOLD, ALPHA)
        alarms += tripped
    assert alarms / 150 <= ALPHA
