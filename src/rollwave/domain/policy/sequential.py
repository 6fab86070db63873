"""The sequential test: whether failures exceed a threshold, judged after every report without more false alarms.

A mixture of likelihood ratios against the threshold p, over the rates r·p for r in ``RATIOS``: an e-process, which by
Ville's inequality exceeds 1/alpha at any time with a probability of at most alpha, as long as each device's chance to
fail, given what came before, is at most p.

Devices are numbered in the order in which they were sent to, and the test looks at prefixes of that order: failures
report sooner than successes, so finished devices are no fair sample. A device that has not ended counts as not failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, log1p

RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Multiples of the threshold that the test looks for."""

_LOGS = tuple(log(ratio) for ratio in RATIOS)
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first ``sent`` devices: so many of them have ``failed``, and so many are still ``in_flight``."""

    sent: int
    failed: int
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What the test says.

    ``limit`` is a lower bound on the true share of failures (0 to 1) with confidence 1 - alpha, and ``value`` the share
    of failures in the prefix that gives it. ``trips_after`` is the least number of further failures that trip it.
    """

    tripped: bool
    limit: float
    value: float
    trips_after: int


def log_evidence(failed: int, sent: int, threshold: float) -> float:
    """The logarithm of the evidence that more than ``threshold`` (0 to 1) of the devices fail."""
    terms = [
        failed * log_ratio - sent * log1p(threshold * (ratio - 1))
        for ratio, log_ratio in zip(RATIOS, _LOGS, strict=True)
    ]
    top = max(terms)
    return top + log(sum(exp(each - top) for each in terms)) - log(len(RATIOS))


def judge(prefixes: Sequence[Prefix], threshold: float, alpha: float) -> Standing:
    """Judge the ``prefixes``, the last of which is all devices sent to so far."""
    wanted = -log(alpha)
    limits = [(_limit(each, wanted), each) for each in prefixes]
    limit, strongest = max(limits, key=lambda each: each[0], default=(0.0, Prefix(0, 0)))
    value = strongest.failed / strongest.sent if strongest.sent else 0.0
    tripped = any(log_evidence(each.failed, each.sent, threshold) >= wanted for each in prefixes)
    return Standing(tripped, limit, value, 0 if tripped else _trips_after(prefixes, threshold, wanted))


def _limit(prefix: Prefix, wanted: float) -> float:
    """The threshold at which the prefix would just trip; 0 where it would at none. Evidence falls as p grows."""
    if not prefix.failed or log_evidence(prefix.failed, prefix.sent, 0.0) < wanted:
        return 0.0
    low, high = 0.0, 1.0
    if log_evidence(prefix.failed, prefix.sent, high) >= wanted:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if log_evidence(prefix.failed, prefix.sent, middle) >= wanted else (low, middle)
    return low


def _trips_after(prefixes: Sequence[Prefix], threshold: float, wanted: float) -> int:
    """The least number of further failures with which a prefix trips: of its own devices in flight, or of later ones."""

    def trips(failed: int, sent: int) -> bool:
        return log_evidence(failed, sent, threshold) >= wanted

    within = [
        _least(lambda further, at=each: trips(at.failed + further, at.sent), each.in_flight)
        for each in prefixes
        if trips(each.failed + each.in_flight, each.sent)
    ]
    if within:
        return min(within)
    last = prefixes[-1] if prefixes else Prefix(0, 0)
    finished = last.sent - last.in_flight
    high = 1
    while not trips(last.failed + high, finished + high):
        high *= 2
    return _least(lambda further: trips(last.failed + further, finished + further), high)


def _least(holds: Callable[[int], bool], high: int) -> int:
    """The least number above 0 for which a condition holds that holds for ``high`` and for all above the least."""
    return bisect_left(range(1, high + 1), True, key=holds) + 1
