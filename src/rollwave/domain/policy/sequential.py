"""The sequential test: whether failures exceed a threshold, judged after every report without more false alarms.

A mixture of likelihood ratios against the threshold p, over the rates r·p for r in ``RATIOS``: an e-process, which by
Ville's inequality exceeds 1/alpha at any time with a probability of at most alpha, as long as each device's chance to
fail, given what came before, is at most p.

Devices are numbered in the order in which they were sent to, and the test looks at prefixes of that order: failures
report sooner than successes, so finished devices are no fair sample. A device that has not finished counts as not
failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, log, log1p

RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Multiples of the threshold that the test looks for."""

_LOGS = tuple(log(ratio) for ratio in RATIOS)
_LOG_OF_NUMBER = log(len(RATIOS))
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first ``sent`` devices: the number of those that have ``failed``, and of those still ``in_flight``."""

    sent: int
    failed: int
    in_flight: int = 0


NOTHING_SENT = Prefix(0, 0)


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound on the true share of failures (0 to 1) with confidence 1 - alpha, and the prefix that gives it."""

    limit: float
    prefix: Prefix

    @property
    def value(self) -> float:
        """The share of failures in that prefix, 0 to 1."""
        return self.prefix.failed / self.prefix.sent if self.prefix.sent else 0.0


def log_evidence(failed: int, sent: int, threshold: float) -> float:
    """The natural logarithm of the evidence that more than ``threshold`` (0 to 1) of the devices fail."""
    terms = [
        failed * log_ratio - sent * log1p(threshold * (ratio - 1))
        for ratio, log_ratio in zip(RATIOS, _LOGS, strict=True)
    ]
    top = max(terms)
    return top + log(sum(exp(each - top) for each in terms)) - _LOG_OF_NUMBER


def is_evidence(failed: int, sent: int, threshold: float, alpha: float) -> bool:
    """Whether ``failed`` of ``sent`` devices trip a test that raises a false alarm with a chance of ``alpha``."""
    # A share up to the threshold is evidence of nothing: log(1 + p(r - 1)) is at least p·log(r), as the logarithm is
    # concave, so no term of the mixture is above 0. Most prefixes are such, and the logarithms take most of the time.
    return failed > threshold * sent and log_evidence(failed, sent, threshold) >= -log(alpha)


def trips(prefixes: Iterable[Prefix], threshold: float, alpha: float) -> bool:
    """Whether any of the prefixes trips."""
    return any(each.failed and is_evidence(each.failed, each.sent, threshold, alpha) for each in prefixes)


def bound(prefixes: Sequence[Prefix], alpha: float) -> Bound:
    """The largest threshold at which one of the prefixes would just trip, 0 if none would at any."""
    found = Bound(0.0, NOTHING_SENT)
    for each in reversed(prefixes):  # with a steady share of failures, the last one has the largest root: one search
        # A root above the largest one so far exists only if there is evidence at that one: it falls as p grows.
        if each.failed and is_evidence(each.failed, each.sent, found.limit, alpha):
            found = Bound(_root(each, found.limit, alpha), each)
    return found


def _root(prefix: Prefix, low: float, alpha: float) -> float:
    """The threshold from ``low`` to 1 at which the evidence is 1/alpha. There is enough at ``low``, none at 1."""
    high = 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_evidence(prefix.failed, prefix.sent, middle, alpha) else (low, middle)
    return low


def trips_after(prefixes: Sequence[Prefix], threshold: float, alpha: float) -> int:
    """The least number of further failures that trip the test: of devices in flight, else also of later ones.

    The last of ``prefixes`` is all devices sent to so far. 0: it trips already.
    """
    if trips(prefixes, threshold, alpha):
        return 0
    least: int | None = None
    for each in prefixes:
        most = each.in_flight if least is None else min(each.in_flight, least - 1)
        if most > 0 and is_evidence(each.failed + most, each.sent, threshold, alpha):
            least = _least(partial(_trips_with, each, threshold, alpha), most)
    if least is not None:
        return least
    last = prefixes[-1] if prefixes else NOTHING_SENT
    finished = last.sent - last.in_flight

    def with_later(further: int) -> bool:
        return is_evidence(last.failed + further, finished + further, threshold, alpha)

    high = 1
    while not with_later(high):
        high *= 2
    return _least(with_later, high)


def _trips_with(prefix: Prefix, threshold: float, alpha: float, further: int) -> bool:
    """Whether the prefix trips if ``further`` of its devices in flight fail."""
    return is_evidence(prefix.failed + further, prefix.sent, threshold, alpha)


def _least(holds: Callable[[int], bool], high: int) -> int:
    """The least number above 0 for which a condition holds that holds for ``high`` and for all above the least."""
    return bisect_left(range(1, high + 1), True, key=holds) + 1
