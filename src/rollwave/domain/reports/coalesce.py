"""From the reports of a batch to the fewest that must be written."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from rollwave.domain.execution import RANK, TERMINAL, ExecutionStatus
from rollwave.domain.ids import DeviceId
from rollwave.domain.reports.parse import Report

MAX_ATTEMPTS_PER_BATCH = 4
"""Attempts of one device that are read in one batch."""


def one_per_execution(reports: Iterable[tuple[DeviceId, Report]]) -> list[list[tuple[DeviceId, Report]]]:
    """Keep the furthest report of each execution and attempt, in lists with at most one report of an execution each.

    The lists are to be written one after the other. Nearly always there is one. There are more where a batch has
    reports of one device under different attempts, or a failure after other reports (which tell why the attempt
    failed). Of one device no more than ``MAX_ATTEMPTS_PER_BATCH`` attempts are read.
    """
    said = list(reports)
    if len({(report.campaign_id, device_id) for device_id, report in said}) == len(said):
        return [said] if said else []
    furthest: dict[tuple[int, DeviceId], dict[int | None, list[Report]]] = {}
    for device_id, report in said:
        attempts = furthest.setdefault((report.campaign_id, device_id), {})
        if report.attempt not in attempts and len(attempts) == MAX_ATTEMPTS_PER_BATCH:
            continue
        words = attempts.setdefault(report.attempt, [])
        if not words or (report.status is ExecutionStatus.FAILED and _says_more(report, words[-1])):
            words.append(report)
        elif _says_more(report, words[-1]):
            words[-1] = report
    result: list[list[tuple[DeviceId, Report]]] = []
    for (_, device_id), attempts in furthest.items():
        for number, report in enumerate(chain.from_iterable(attempts.values())):
            if number == len(result):
                result.append([])
            result[number].append((device_id, report))
    return result


def _says_more(new: Report, known: Report) -> bool:
    if RANK[new.status] != RANK[known.status]:
        return RANK[new.status] > RANK[known.status]
    # Of two terminal reports the first one counts.
    return new.status not in TERMINAL and (new.progress or 0) > (known.progress or 0)
