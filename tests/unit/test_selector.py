"""Selectors: what can be written, what it means for a device, and what an error says."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rollwave.domain.policy.selector.evaluate import evaluate, labels_of
from rollwave.domain.policy.selector.text import UnreadableSelector, parse
from rollwave.domain.policy.selector.versions import version_key

NOW = datetime(2027, 1, 11, 8, tzinfo=UTC)
PUMP = labels_of(
    {"site": "north", "rev": 4, "load": 0.5, "note": "5", "hot": True, "tags": ["a"], "gone": None, "version": "0.1"},
    device_id="pump-1",
    device_type="pump",
    version="1.10.0",
    last_seen=NOW - timedelta(days=8),
)


def matches(text: str) -> bool:
    return evaluate(parse(text), PUMP, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "site == north",
        "site = 'north'",
        "site != south",
        "rev == 4.0",
        "rev >= 4 and rev < 5 and load > 0.25",
        "site in (south, north)",
        "site not in (south, 'east')",
        "has(site) and not has(other)",
        "device_id like 'pump-*' and device_id like 'p*-1'",
        "device_type == pump",
        # RSQL, in which ; is and, and comma is or
        "site==south,site==north;rev=gt=3",
        "rev=in=(3,4);site=out=(south)",
        "rev=ge=4;rev=le=4;rev=lt=5",
        # and binds tighter than or, not tighter than and
        "site == north or site == south and rev == 9",
        "not site == south and rev == 4",
        "(site == north or site == south) and rev == 4",
        # versions, by their numbers
        "version > 1.9 and version == v1.10 and version != 1.1",
        "version in (1.10, 2)",
        "last_seen < -7d and last_seen > -9d and last_seen < 2027-01-04T08:00:00+01:00",
        # an absent label makes comparisons false, but != and not in true
        "nothing != 1 and nothing not in (1, 2) and not nothing == 1 and not nothing < 1 and not nothing >= 1",
        "gone != 1 and not has(gone)",
        # a number is compared with a number, text with text; anything else counts as absent
        "note == '5' and note != 5 and not note > 4 and rev != '4'",
        "has(hot) and hot != true and not hot == true and tags != a",
        "time_zone != UTC",
    ],
)
def test_a_selector_that_matches(text: str) -> None:
    assert matches(text)
    assert not matches(f"not ({text})")


def test_escapes_stand_for_the_character_itself() -> None:
    device = labels_of({"a": 'it\'s "x" \\ %_'})
    for text in (r"'it\'s \"x\" \\ %_'", r'"it\'s \"x\" \\ %_"', r'"it\'s*%_"'):
        operator = "like" if "*" in text else "=="
        assert evaluate(parse(f"a {operator} {text}"), device, NOW)
    assert not evaluate(parse("a like 'it_s*'"), device, NOW), "only * is a wildcard"


def test_an_attribute_stands_in_for_an_empty_version_or_zone_alone() -> None:
    attributes = {"version": "2", "time_zone": "UTC", "device_type": "x", "last_seen": "2027-01-01T00:00:00Z"}
    assert labels_of(attributes, device_id="a") == {"device_id": "a", "version": "2", "time_zone": "UTC"}
    assert labels_of(attributes, device_id="a", version="3")["version"] == "3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: the end is not expected here; expected: '(', a key, has, not"),
        ("site ==", "line 1, column 8: the end is not expected here; expected: a value"),
        ("site ==\n  north east", "line 2, column 9: 'east' is not expected here; expected: "),
        ("a == 'x", "line 1, column 6: the text that begins here has no closing quote"),
        ("a == x*", "line 1, column 7: '*' is not expected here"),
        ("a == 1 or\n(b == 2", "line 2, column 8: the end is not expected here; expected: ')'"),
        ("has(1)", "line 1, column 5: '1' is not expected here; expected: a key"),
        ("last_seen > yesterday", "line 1, column 13: 'yesterday' is not expected here; expected: a time with a zone"),
        ("last_seen > 2027-01-01T00:00:00", "line 1, column 13: '2027-01-01T00:00:00' is not expected here"),
        ("last_seen like '2027*'", "line 1, column 16: last_seen is a time and has no pattern"),
        (f"a == {'1' * 31}", "line 1, column 6: a number has more than 30 digits"),
        ("a == 1e31", "line 1, column 6: a number has more than 30 digits"),
        ("a in (" + ", ".join("1" * 33) + ")", "line 1, column 7: the selector has more than 32 comparisons"),
        (" or ".join(["a == 1"] * 33), "line 1, column 326: the selector has more than 32 comparisons"),
        ("not " * 1000 + "a == 1", "line 1, column 4006: the selector is nested deeper than 8"),
        ("a == '" + "x" * 4096 + "'", "the selector is longer than 4,096 bytes"),
        (
            "name like '*-a'",
            "line 1, column 11: the pattern '*-a' begins with *, so every device would have to be read",
        ),
        ("name like '*a' or a == 1", "line 1, column 11: the pattern '*a' begins with *"),
        ("not (a == 1 and name like '*a')", "line 1, column 27: the pattern '*a' begins with *"),
    ],
)
def test_an_error_says_where_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(UnreadableSelector) as found:
        parse(text)
    assert str(found.value).startswith(message)


def test_words_in_capitals_are_pointed_out() -> None:
    with pytest.raises(UnreadableSelector) as found:
        parse("ring == canary AND site == north")
    assert found.value.hint == "Write it in lower case: and."


@pytest.mark.parametrize(
    "text",
    [
        "a in (" + ", ".join("1" * 32) + ")",
        f"a == {'1' * 30} and b == {'0.' + '1' * 30}",
        "not " * 7 + "a == 1",
        "(" * 500 + "a == 1" + ")" * 500,  # brackets alone are no nesting
        "a == 1 and (name like '*a' or name like '*b')",
    ],
)
def test_the_limits_themselves_are_allowed(text: str) -> None:
    parse(text)


def test_every_selector_on_the_reference_page_can_be_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "selectors.md").read_text("utf-8")
    examples = re.findall(r"^\| `([^`]+)` \|", page.partition("## Examples")[2], re.MULTILINE)
    rsql = re.findall(r"^\| (`.+`) \| (`.+`)", page.partition("## RSQL")[2].partition("## Examples")[0], re.MULTILINE)
    pairs = [pair for row in rsql for pair in zip(*(re.findall("`([^`]+)`", each) for each in row), strict=False)]
    assert len(examples) == 7
    assert len(pairs) == 9
    for text in examples:
        parse(text)
    for text, same in pairs[:-1]:  # the last one says what cannot be written
        assert parse(text) == parse(same)


def test_versions_are_in_the_order_of_semantic_versioning() -> None:
    in_order = [
        *("rc", "", "0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"),
        *("1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2rc1", "1.2", "1.2.1", "1.9", "1.10", "2024-05-01"),
        *("2024-06-01", "2025-01-01", str(10**19)),
    ]
    shuffled = [*in_order[1::2], *in_order[::2]]
    assert sorted(shuffled, key=version_key) == in_order
    for same in (("1.0", "v1.0.0"), ("1.2+build.5", "1.2"), ("01.02", "1.2"), ("1.0.0-rc.01", "1-rc.1")):
        assert version_key(same[0]) == version_key(same[1])
