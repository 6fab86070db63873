"""Text written by devices cannot control an operator's terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.client.text import visible
from rollwave.domain.overview.texts import duration


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\u202eevil", "\\u202eevil"),
        ("lone \ud800", "lone \\ud800"),
        ("[bold]µ 漢 ✔[/bold]", "[bold]µ 漢 ✔[/bold]"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_escaped_text_contains_no_control_character(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (42.4, "42 s"), (170, "3 min"), (7500, "2 h 5 min")])
def test_durations_are_shown_in_plain_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
