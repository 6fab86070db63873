"""Output for terminals and files whose encoding lacks characters: these are escaped, instead of raising an error."""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import IO

_LOOKALIKES: Mapping[str, str] = MappingProxyType(
    {
        "·": "-", "…": "...", "—": "-", "━": "=", "─": "-",
        "✓": "+", "●": "*", "○": "o", "‖": "=", "■": "#", "▲": "!", "\u2013": "-",
        "█": "#", "▓": "F", "▒": "I", "░": "D", "╌": "-",
    }
)  # fmt: skip
"""Replacements for characters in our own texts."""

_SPINNER = range(0x2800, 0x2900)
"""Braille patterns. rich draws the spinner of a running command with them."""

_HANDLER = "rollwave.spelled"


def spell_what_cannot_be_encoded(*streams: IO[str]) -> None:
    """From now on, ``streams`` write an escape for a character that their encoding does not have."""
    codecs.register_error(_HANDLER, _spelled)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_in_ascii(char) for char in error.object[error.start : error.end]), error.end


def _in_ascii(char: str) -> str:
    if ord(char) in _SPINNER:
        return "*"
    return _LOOKALIKES.get(char) or char.encode("unicode_escape").decode("ascii")
