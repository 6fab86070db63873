"""Valid ids: one rule, written in three ways."""

from __future__ import annotations

import re
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.ids import ID_PATTERN, UNADDRESSABLE, is_valid_id

CHARACTERS = st.sampled_from(
    "aZ09:._-/+#$@%\n\x00\x7f\x85 \u00a0\u3000\u200b\ufeff\ufdd0\uffff\U0001ffffé日\U0001f525\ud800"
)


def may_be_one(text: str) -> bool:
    """The rule, written in the simplest way."""
    forbidden = any(
        each in "/+#" or category(each) in ("Cc", "Cs") or ord(each) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(each) <= 0xFDEF
        for each in text
    )
    return 1 <= len(text) <= 128 and not forbidden and not text.startswith("$") and not blank(text[0] + text[-1])


def blank(ends: str) -> bool:
    return ends != ends.strip() or any(each in "\u200b\u2060\ufeff" or category(each) in ("Zs", "Zl") for each in ends)


def addressable(text: str) -> bool:
    """The condition in the statement that claims devices."""
    return re.search(UNADDRESSABLE, text) is None and len(text) <= 128


LEGAL = [
    *(
        "Pump 7",
        "gerät@1",
        "a..b",
        "..",
        ".",
        "a%2Fb",
        "日本",
        "\U0001f469\u200d\U0001f527",
        "\u2764\ufe0f",
        "a$",
        "*",
        ">",
    ),
    *("a\u2003b", "a\u202eb", "e\u0301", "'; DROP TABLE devices; --", "\\", "x" * 128, "\U0001f600" * 128, "\ufffd"),
]
ILLEGAL = [
    *("", "x" * 129, "é" * 129, "a/b", "+", "a#", "$", "$SYS", "a\n", "\n", "\x00", "\x1b[2J", "\x7f", "\x80", "\x9f"),
    *("\ud800", "a\udfff", "\ufdd0", "\ufdef", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff"),
    *(" ", " a", "a ", "\u00a0a", "a\u3000", "a\u200b", "\ufeffa", "a\u2028", "\u2003", "a\u200e"),
]


@given(st.text(CHARACTERS | st.characters(), max_size=6))
def test_all_definitions_of_a_valid_id_agree(text: str) -> None:
    assert is_valid_id(text) == addressable(text)
    if is_valid_id(text):
        assert may_be_one(text)
    elif may_be_one(text):  # At an end of an id, these are invisible, too.
        assert any(category(each) == "Cf" for each in (text[0], text[-1]))


@given(st.text(CHARACTERS | st.characters(), max_size=6).filter(lambda text: text.isprintable()))
def test_for_printable_ids_the_published_pattern_is_exact(text: str) -> None:
    assert is_valid_id(text) == may_be_one(text)


@pytest.mark.parametrize("text", LEGAL, ids=ascii)
def test_common_device_ids_are_valid(text: str) -> None:
    assert is_valid_id(text)
    assert addressable(text)
    assert re.search(ID_PATTERN, text)


@pytest.mark.parametrize("text", ILLEGAL, ids=ascii)
def test_invalid_ids_are_refused(text: str) -> None:
    assert not is_valid_id(text)
    assert not addressable(text)


@given(st.text(CHARACTERS | st.characters(codec="utf-8"), max_size=6))
def test_the_published_pattern_agrees(text: str) -> None:
    """The pattern cannot express lone surrogates, which no JSON text in UTF-8 contains."""
    if not any(category(each) == "Cs" for each in text):
        assert (re.search(f"{ID_PATTERN[:-1]}\\Z", text) is not None) == is_valid_id(text)


def test_ids_are_compared_exactly() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    assert is_valid_id(composed)
    assert is_valid_id(decomposed)
    assert len({composed, decomposed}) == 2
