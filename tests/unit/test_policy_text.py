"""The text of a policy document: what is read as what, and which texts are refused where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.document.located import Position, Unreadable
from rollwave.domain.policy.document.text import Format, read

YAML, JSON = Format.YAML, Format.JSON


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("2027-01-11T08:00:00Z", "2027-01-11T08:00:00Z"),
        ("2027-01-11", "2027-01-11"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("=", "="),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'null'", "null"),
        ('"12"', "12"),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("90s", "90s"),
        ("5%", "5%"),
    ],
)
def test_a_scalar_is_read_by_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    data = read(f"- {text}\n", YAML).data
    assert isinstance(data, list)
    assert [(each, type(each)) for each in data] == [(value, type(value))]


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a: &x 1", 1, 4, "anchors and aliases are not allowed"),
        ("a: 1\nb: *x", 2, 4, "anchors and aliases are not allowed"),
        ("&x a: 1", 1, 1, "anchors and aliases are not allowed"),
        ("a: !!str 1", 1, 4, "tags are not allowed"),
        ("- !mine {}", 1, 3, "tags are not allowed"),
        ("<<: {a: 1}", 1, 1, "merge keys are not allowed"),
        ("a: 1\nb: 2\na: 3", 3, 1, "the key a is given twice"),
        ("{a: 1, 'a': 2}", 1, 8, "the key a is given twice"),
        ("a: 1\n---\nb: 2", 2, 1, "there is a second document"),
        ("[a]: 1", 1, 1, "a key must be text"),
        ("a: .inf", 1, 4, ".inf is not a finite number"),
        ("a: 1e999", 1, 4, "the number 1e999 is too large"),
        ("a: " + "9" * 31, 1, 4, "a number has more than 30 digits"),
        ("a: [1", 1, 6, "not YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'"),
        (
            "a:\n\tb: 1",
            2,
            1,
            "not YAML: while scanning for the next token found character '\\t' that cannot start any token",
        ),
        ("a: 1\nb: \x07", 2, 4, "not YAML: the character U+0007 is not allowed"),
        ("a: " + "[" * 10 + "1" + "]" * 10, 1, 14, "the document is nested deeper than 10"),
    ],
)
def test_what_a_policy_must_not_have_is_refused_where_it_stands(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(text, YAML)
    assert (str(caught.value), caught.value.position) == (said, Position(line, column))


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n"])
def test_a_document_must_not_be_empty(text: str) -> None:
    with pytest.raises(Unreadable, match="the document is empty"):
        read(text, YAML)


def test_ten_levels_are_allowed() -> None:
    assert read("a: " + "[" * 9 + "1" + "]" * 9, YAML).data


@pytest.mark.parametrize("form", Format)
def test_a_document_of_64_kib_is_read_and_a_larger_one_is_not(form: Format) -> None:
    text = '{"a": "' + "x" * (64 * 1024 - 9) + '"}'
    assert read(text, form).data
    with pytest.raises(Unreadable, match="65,537 bytes, and at most 65,536 are allowed"):
        read(text + " ", form)


@pytest.mark.parametrize("form", Format)
def test_text_that_is_not_utf_8_is_refused(form: Format) -> None:
    with pytest.raises(Unreadable, match="byte 7 is not UTF-8"):
        read(b'{"a": \xff}', form)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ('{"a": 1,\n "a": 2}', Position(2, 2), "the key a is given twice"),
        ('{"a": tru}', Position(1, 7), "not JSON: Expecting value"),
        ("{'a': 1}", Position(1, 2), "not JSON: Expecting property name enclosed in double quotes"),
        ('{"a": NaN}', None, "NaN is not a finite number"),
        ('{"a": 1e999}', Position(1, 7), "the number 1e999 is too large"),
        ('{"a": ' + "9" * 31 + "}", Position(1, 7), "a number has more than 30 digits"),
        ("[" * 30_000, None, "the document is nested deeper than 10"),
    ],
)
def test_what_is_not_json_is_refused(text: str, position: Position | None, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(text, JSON)
    assert (str(caught.value).partition(": line")[0], caught.value.position) == (said, position)


def test_keys_items_and_values_have_positions() -> None:
    found = read("waves:\n  - name: a\n    gate: {soak: 2h}\n", YAML)
    assert found.key(("waves", 0, "gate", "soak")) == Position(3, 12)
    assert found.value(("waves", 0, "gate", "soak")) == Position(3, 18)
    assert found.key(("waves", 0)) == Position(2, 5)
    assert found.value(("waves", 0, "gate", "no such key")) == Position(3, 5)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s: a = = b", Position(1, 8)),
        ("s: 'a = = b'", Position(1, 9)),
        ('s: "a = = b"', Position(1, 9)),
        ('s: "a \\u003d = b"', Position(1, 4)),
        ("s: |\n  a = = b", Position(1, 4)),
    ],
)
def test_a_place_in_a_text_has_a_position_where_the_text_stands_as_it_is(text: str, place: Position) -> None:
    assert read(text, YAML).within(("s",), Position(1, 5)) == place


_leaves = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text()
_levels = st.lists(_leaves | st.dictionaries(st.text(), _leaves, max_size=3), max_size=3)


@given(st.dictionaries(st.text(), _leaves | _levels, max_size=3))
def test_json_is_read_as_json_whatever_its_texts(data: object) -> None:
    assert read(json.dumps(data), JSON).data == data
