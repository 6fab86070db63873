"""One rule for ids, written twice: for Python, and for PostgreSQL in the form that it is quick with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.ids import UNADDRESSABLE, is_valid_id

CHARACTERS = st.sampled_from("aZ09:._-/+#\n\x00 é")


def _addressable(text: str) -> bool:
    return re.search(UNADDRESSABLE, text) is None and len(text) <= 128


@given(st.text(CHARACTERS | st.characters(), max_size=6))
def test_both_say_the_same(text: str) -> None:
    assert _addressable(text) == is_valid_id(text)


@pytest.mark.parametrize("text", ["", "a" * 128, "a" * 129, "a..b", "a.b.c", "..", ".", "a\n", "\n"])
def test_both_say_the_same_at_the_edges(text: str) -> None:
    assert _addressable(text) == is_valid_id(text)
