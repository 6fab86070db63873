"""Guardrails: the numbers of each test are those of the rows, and a test that is over its limit has tripped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from math import exp, log

from tests.policy_audit.labels import group_of
from tests.policy_audit.snapshot import Campaign, Json, Row, share, wave_of

_RATES = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_ALL = ("reported", "rejected", "no_answer", "no_progress", "overdue")
_DEFAULT: Json = {"name": "failures", "threshold": "10%"}


_BEGIN_ANEW = {"policy_edited", "segment_released", "running"}
"""The events with which tests begin anew: an edit of their guardrail, a release, and a start after their pause."""


def rules_of(document: Json) -> list[Json]:
    """The guardrails of a document."""
    given: list[Json] | None = document.get("guardrails")
    return [_DEFAULT] if given is None else given


def guardrails(campaign: Campaign) -> Iterator[str]:
    """Check every test of the document in force. An aborted campaign counts no more."""
    if campaign.row["status"] not in {"RUNNING", "PAUSED", "COMPLETED"}:
        return
    rules = {each["name"]: each for each in rules_of(campaign.document)}
    for test in campaign.tests:
        rule = rules.get(test["guardrail"])
        if rule is None:
            yield f"guardrail {test['guardrail']} has a test and is not in the document"
        elif not _is_first_row(rule, test):
            yield from _test(campaign, rule, test)
    for rule in rules.values():
        yield from _missing(campaign, rule)


def begun_anew(campaign: Campaign, before: Campaign | None) -> Iterator[str]:
    """The numbers of a test go down, or it forgets that it tripped, only when it may begin anew."""
    if before is None or _BEGIN_ANEW & {each["event"] for each in campaign.events_since(before)}:
        return
    now = {_key(each): each for each in campaign.tests}
    for test in before.tests:
        kept = now.get(_key(test))
        if kept is None or _state(kept) < _state(test) or kept["began_after"] != test["began_after"]:
            yield f"test {dict(test)} began anew without a reason: {kept and dict(kept)}"


def _state(test: Row) -> tuple[bool, int]:
    return test["tripped_at"] is not None, test["finished"]


def _key(test: Row) -> tuple[str, int, str]:
    return test["guardrail"], test["wave"], test["labels"]


def group_of_test(test: Row) -> Json:
    """The labels of the devices that a test of a guardrail of segments judges."""
    labels: Json = json.loads(test["labels"])
    return labels


def _missing(campaign: Campaign, rule: Json) -> Iterator[str]:
    """Whoever has finished is counted in a test."""
    tests = [each for each in campaign.tests if each["guardrail"] == rule["name"]]
    first = next((each["began_after"] for each in tests if _is_first_row(rule, each)), 0)
    for each in campaign.placed:
        number = each["dispatch_number"] or 0
        if number > first and _finished(each) and not any(_is_of(campaign, rule, test, each) for test in tests):
            yield f"{each['device_id']} has finished, and no test of guardrail {rule['name']} is about it"


def _is_first_row(rule: Json, test: Row) -> bool:
    scope = rule.get("scope", "campaign")
    return bool(scope != "campaign" and test["wave"] == -1 and json.loads(test["labels"]) == {})


def _test(campaign: Campaign, rule: Json, test: Row) -> Iterator[str]:
    surely = [each for each in campaign.devices if _covers(campaign, rule, test, each) is True]
    maybe = [each for each in campaign.devices if _covers(campaign, rule, test, each) is None]
    name = f"test {test['number']} of guardrail {rule['name']}"
    yield from _numbers(rule, test, (surely, maybe), name)
    finished, failed = test["finished"], test["failed"]
    tripped = test["tripped_at"] is not None
    if rule.get("method", "ratio") == "ratio":
        over = failed > share(rule.get("threshold", "10%")) * finished
        if over and finished >= rule.get("min_finished", 1) and not tripped:
            yield f"{name} has not tripped with {failed} of {finished} failed"
        return
    buckets = sorted(
        (each for each in campaign.buckets if each["test"] == test["number"]), key=lambda each: each["first"]
    )
    yield from _buckets(rule, (surely, maybe), buckets, name)
    if not len(surely) <= test["dispatched"] <= len(surely) + len(maybe):
        yield f"{name} counts {test['dispatched']} devices sent to, its rows are {len(surely)} to {len(surely + maybe)}"
    sent, failures = 0, 0
    for each in buckets:
        sent, failures = sent + each["dispatched"], failures + each["failed"]
        over = evidence(failures, sent, float(share(rule["threshold"]))) >= test["of_groups"] / rule.get("alpha", 0.01)
        if over and finished >= rule.get("min_finished", 5) and not tripped:
            yield f"{name} has not tripped with {failures} of the first {sent} failed"


Covered = tuple[Sequence[Row], Sequence[Row]]
"""The devices that a test covers, and those that it may cover."""


def _numbers(rule: Json, test: Row, covered: Covered, name: str) -> Iterator[str]:
    """The devices that have finished, and that failed, are those that the test covers."""
    least, most = (sum(map(_finished, each)) for each in covered)
    failed, also = (sum(_fails(rule, device) for device in each) for each in covered)
    if least <= test["finished"] <= least + most and failed <= test["failed"] <= failed + also:
        return
    rows = f"{least}, {failed}" + (f", and up to {most}, {also} more" if most or also else "")
    yield f"{name} counts {test['finished']} finished, {test['failed']} failed; its rows are {rows}"


SLACK = timedelta(seconds=5)
"""How long before a test began a device may have reported that it has ended, and be counted after it began."""


def _covers(campaign: Campaign, rule: Json, test: Row, device: Row) -> bool | None:
    """Whether a test is about a device. None: it may be: the device was sent to before the test began."""
    number = device["dispatch_number"]
    sent_later, by_segment = (number or 0) > test["began_after"], rule.get("scope") == "segment"
    # An edit may have moved a device in flight to another segment before or after it ended.
    if number is None or ((sent_later or not by_segment) and not _is_of(campaign, rule, test, device)):
        return False
    if sent_later:
        return True
    if by_segment or device["failed_before"]:
        return None
    ended = device["completed_at"] if _finished(device) else None
    if ended is None or ended > test["began_at"] + SLACK:
        return True
    return None if ended > min(_began(campaign, test), test["began_at"]) - SLACK else False


def _began(campaign: Campaign, test: Row) -> datetime:
    """When the guardrail of a test began. The test of a wave may be stored later."""
    of = (each for each in campaign.tests if each["guardrail"] == test["guardrail"])
    began: datetime = min(each["began_at"] for each in of if each["began_after"] == test["began_after"])
    return began


def _is_of(campaign: Campaign, rule: Json, test: Row, device: Row) -> bool:
    """Whether a test is about the device's wave, or about its own labels."""
    scope = rule.get("scope", "campaign")
    if scope == "wave":
        return bool(wave_of(device) == test["wave"])
    return scope == "campaign" or group_of(rule["per"], campaign.labels_of(device)) == group_of_test(test)


def _finished(device: Row) -> bool:
    return device["status"] in {"SUCCESS", "FAILED"} or bool(device["failed_before"])


def _fails(rule: Json, device: Row) -> bool:
    failures = [tuple(each.split(":", 1)) for each in device["failed_before"] or ()]
    if device["status"] == "FAILED":
        failures.append((device["failed_reason"], device["error_code"] or ""))
    codes = rule.get("codes")
    return any(reason in rule.get("count", _ALL) and (codes is None or code in codes) for reason, code in failures)


def _buckets(rule: Json, covered: Covered, buckets: Sequence[Row], name: str) -> Iterator[str]:
    ends = [*(each["first"] for each in buckets[1:]), 2**31]
    for each, end in zip(buckets, ends, strict=False):
        inside = [[d for d in of if each["first"] <= d["dispatch_number"] < end] for of in covered]
        surely, maybe = ((len(of), sum(map(_finished, of)), sum(_fails(rule, d) for d in of)) for of in inside)
        numbers = each["dispatched"], each["finished"], each["failed"]
        if not all(low <= n <= low + more for low, n, more in zip(surely, numbers, maybe, strict=True)):
            yield f"bucket {each['first']} of {name} is {dict(each)}, its rows are {surely}, and up to {maybe} more"


def evidence(failed: int, sent: int, threshold: float) -> float:
    """The evidence that more than ``threshold`` of the devices fail: a mean of likelihood ratios."""
    logs = [failed * log(rate) - sent * log(1 + threshold * (rate - 1)) for rate in _RATES]
    return sum(exp(min(each, 700)) for each in logs) / len(_RATES)
