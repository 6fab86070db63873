"""Guardrails: the numbers of each test are those of the rows, and a test that is over its limit has tripped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import exp, log

from tests.policy_audit.snapshot import Campaign, Json, Row, share, wave_of

_RATES = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_ALL = ("reported", "rejected", "no_answer", "no_progress", "overdue")
_DEFAULT: Json = {"name": "failures", "threshold": "10%"}


def guardrails(campaign: Campaign) -> Iterator[str]:
    """Check every test of the document in force. An aborted campaign counts no more."""
    if campaign.row["status"] not in {"RUNNING", "PAUSED", "COMPLETED"}:
        return
    given = campaign.document.get("guardrails")
    rules = {each["name"]: each for each in ([_DEFAULT] if given is None else given)}
    for test in campaign.tests:
        rule = rules.get(test["guardrail"])
        if rule is None:
            yield f"guardrail {test['guardrail']} has a test and is not in the document"
        elif not _is_first_row(rule, test):
            yield from _test(campaign, rule, test)


def _is_first_row(rule: Json, test: Row) -> bool:
    scope = rule.get("scope", "campaign")
    return scope != "campaign" and test["wave"] == -1 and json.loads(test["labels"]) == {}


def _test(campaign: Campaign, rule: Json, test: Row) -> Iterator[str]:
    devices = [each for each in campaign.devices if _covers(campaign, rule, test, each)]
    finished = sum(_finished(each) for each in devices)
    failed = sum(_fails(rule, each) for each in devices)
    name = f"test {test['number']} of guardrail {rule['name']}"
    if (test["finished"], test["failed"]) != (finished, failed):
        yield f"{name} counts {test['finished']} finished, {test['failed']} failed; its rows are {finished}, {failed}"
    tripped = test["tripped_at"] is not None
    if rule.get("method", "ratio") == "ratio":
        over = failed > share(rule.get("threshold", "10%")) * finished
        if over and finished >= rule.get("min_finished", 1) and not tripped:
            yield f"{name} has not tripped with {failed} of {finished} failed"
        return
    buckets = sorted(
        (each for each in campaign.buckets if each["test"] == test["number"]), key=lambda each: each["first"]
    )
    yield from _buckets(rule, devices, buckets, name)
    if test["dispatched"] != len(devices):
        yield f"{name} counts {test['dispatched']} devices sent to, its rows are {len(devices)}"
    sent, failures = 0, 0
    for each in buckets:
        sent, failures = sent + each["dispatched"], failures + each["failed"]
        over = _evidence(failures, sent, float(share(rule["threshold"]))) >= test["of_groups"] / rule.get("alpha", 0.01)
        if over and finished >= rule.get("min_finished", 5) and not tripped:
            yield f"{name} has not tripped with {failures} of the first {sent} failed"


def _covers(campaign: Campaign, rule: Json, test: Row, device: Row) -> bool:
    if (device["dispatch_number"] or 0) <= test["began_after"]:
        return False
    scope = rule.get("scope", "campaign")
    if scope == "campaign":
        return True
    if scope == "wave":
        return wave_of(device) == test["wave"]
    segment = campaign.segments.get(device["segment"])
    labels = {} if segment is None else json.loads(segment["labels"])
    return all(labels.get(key) == value for key, value in json.loads(test["labels"]).items())


def _finished(device: Row) -> bool:
    return device["status"] in {"SUCCESS", "FAILED"} or bool(device["failed_before"])


def _fails(rule: Json, device: Row) -> bool:
    failures = [tuple(each.split(":", 1)) for each in device["failed_before"] or ()]
    if device["status"] == "FAILED":
        failures.append((device["failed_reason"], device["error_code"] or ""))
    codes = rule.get("codes")
    return any(reason in rule.get("count", _ALL) and (codes is None or code in codes) for reason, code in failures)


def _buckets(rule: Json, devices: Sequence[Row], buckets: Sequence[Row], name: str) -> Iterator[str]:
    ends = [*(each["first"] for each in buckets[1:]), 2**31]
    for each, end in zip(buckets, ends, strict=False):
        inside = [d for d in devices if each["first"] <= d["dispatch_number"] < end]
        rows = len(inside), sum(map(_finished, inside)), sum(_fails(rule, d) for d in inside)
        if (each["dispatched"], each["finished"], each["failed"]) != rows:
            yield f"bucket {each['first']} of {name} is {dict(each)}, its rows are {rows}"


def _evidence(failed: int, sent: int, threshold: float) -> float:
    """The evidence that more than ``threshold`` of the devices fail: a mean of likelihood ratios."""
    logs = [failed * log(rate) - sent * log(1 + threshold * (rate - 1)) for rate in _RATES]
    return sum(exp(min(each, 700)) for each in logs) / len(_RATES)
