"""Failures grouped by what they have in common, and the label that separates them from successes."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from rollwave.domain.overview.causes import (
    MAX_VALUES,
    By,
    Failure,
    best_label,
    failure_text,
    group,
    labels_of,
    parse_by,
)
from rollwave.errors import InvalidInput


def of(number: int, **labels: str) -> list[dict[str, str]]:
    return [labels] * number


def failure(code: str | None = "E_BOOT", version: str | None = "1.0", **labels: str) -> Failure:
    return Failure(code, "reported", None, version, labels)


def test_the_label_of_the_failed_devices_explains_them() -> None:
    failed = of(13, revision="B", site="north")
    succeeded = [*of(100, revision="A", site="north"), *of(20, revision="B", site="south")]
    assert best_label(failed, succeeded) == "revision"


def test_a_missing_label_explains_too() -> None:
    assert best_label(of(10, site="a"), [*of(50, site="a", modem="m1"), *of(2, site="a")]) == "modem"


def test_no_label_explains_failures_that_are_spread_like_successes() -> None:
    failed = [*of(10, site="a", line="1"), *of(10, site="b", line="1")]
    succeeded = [*of(100, site="a", line="1"), *of(100, site="b", line="1")]
    assert best_label(failed, succeeded) is None


def test_labels_at_random_explain_nothing() -> None:
    drawn = random.Random(12)
    wrong = 0
    for _ in range(200):
        devices = [
            {f"label {key}": str(drawn.randrange(values)) for key, values in enumerate((2, 5, 20))} for _ in range(120)
        ]
        wrong += best_label(devices[:20], devices[20:]) is not None
    assert wrong <= 10


def test_a_single_failure_is_explained_by_nothing() -> None:
    assert best_label(of(1, revision="B"), of(3, revision="A")) is None


@pytest.mark.parametrize(("failed", "succeeded"), [([], of(5, a="x")), (of(5, a="x"), []), ([], [])])
def test_without_failures_or_without_successes_nothing_is_compared(
    failed: list[dict[str, str]], succeeded: list[dict[str, str]]
) -> None:
    assert best_label(failed, succeeded) is None


def test_a_label_with_a_value_for_each_device_does_not_explain() -> None:
    serials = [{"serial": str(number), "revision": "B" if number < 60 else "A"} for number in range(200)]
    assert len(serials) > MAX_VALUES
    assert best_label(serials[:60], serials[60:]) == "revision"
    assert best_label([{"serial": each["serial"]} for each in serials[:60]], [{"serial": "same"}] * 140) is None


def test_of_equal_labels_the_first_by_name_explains() -> None:
    failed, succeeded = of(20, zone="x", area="x"), of(50, zone="y", area="y")
    assert best_label(failed, succeeded) == best_label(failed[::-1], succeeded[::-1]) == "area"


def test_causes_are_grouped_and_ordered_by_their_devices() -> None:
    failures = [failure(revision="B")] * 13 + [failure(revision="B", version="2.0")] + [failure("E_DISK")]
    found = group(failures, By(label="revision"))
    assert [each.text for each in found] == [
        "E_BOOT · revision=B · from 1.0: 13 devices",
        "E_BOOT · revision=B · from 2.0: 1 device",
        "E_DISK · no revision · from 1.0: 1 device",
    ]
    assert sum(each.devices for each in found) == len(failures)


def test_failures_without_a_code_are_grouped_by_reason_and_message() -> None:
    failures = [Failure(None, "reported", f"disk full: {number} bytes\nmore", None, {}) for number in (10, 234)]
    found = group(failures, By(best_label=False))
    assert [(each.devices, each.message) for each in found] == [(2, "disk full: # bytes")]
    assert found[0].text == "failed without a code (disk full: # bytes) · version unknown: 2 devices"


@pytest.mark.parametrize(
    ("reason", "text"),
    [("no_answer", "no answer"), ("overdue", "device timeout is over"), (None, "failed without a code")],
)
def test_a_reason_in_words(reason: str | None, text: str) -> None:
    assert failure_text(None, reason, None) == text


def test_what_to_group_by_is_read_from_a_list() -> None:
    assert parse_by(None) == By(code=True, label=None, best_label=True, version=True)
    assert parse_by("code,label:site") == By(code=True, label="site", best_label=False, version=False)
    assert parse_by("label") == By(code=False, label=None, best_label=True, version=False)
    assert parse_by("label,code,label:a,code") == By(code=True, label="a", best_label=False, version=False)
    for wrong in ("", "code, label", "colour", "label:", "from_version:1"):
        with pytest.raises(InvalidInput):
            parse_by(wrong)


def test_labels_are_texts_and_numbers() -> None:
    attributes = {"a": "x", "n": 5, "d": Decimal("1.50"), "t": True, "o": {}, "none": None, "version": "1", "l": []}
    assert labels_of("pump", None, attributes) == {"a": "x", "n": "5", "d": "1.5", "device_type": "pump"}
