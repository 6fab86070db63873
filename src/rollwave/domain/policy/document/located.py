"""Plain data of a document with the positions of its parts, and the limits that both formats share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

MAX_DEPTH = 10
MAX_DIGITS = 30
TOO_DEEP = f"the document is nested deeper than {MAX_DEPTH}"
TOO_MANY_DIGITS = f"a number has more than {MAX_DIGITS} digits"

Plain: TypeAlias = "Mapping[str, Plain] | Sequence[Plain] | str | int | float | bool | None"
Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands: keys of mappings, and numbers (from 0) of lists, from the outside in."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the text. ``line`` and ``column`` count characters from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Located:
    """The ``data`` of a document, and where its parts stand in the text. Empty where it did not come as text.

    ``keys``: where each key of a mapping and each item of a list begins, by its path. ``values``: where each value
    begins. ``verbatim``: the paths of texts that stand in the document as they are, so that each of their characters
    has a known position; their ``values`` are then those of the first character.
    """

    data: Plain
    keys: Mapping[Path, Position] = field(default_factory=dict)
    values: Mapping[Path, Position] = field(default_factory=dict)
    verbatim: Collection[Path] = frozenset()

    def key(self, path: Path) -> Position | None:
        """The position of the key at ``path``, or of the nearest one around it; None: it is not known."""
        found = (self.keys.get(path[:length]) for length in range(len(path), -1, -1))
        return next((each for each in found if each is not None), None)

    def value(self, path: Path) -> Position | None:
        """The position of the value at ``path``, or of the nearest key around it; None: it is not known."""
        return self.values.get(path) or self.key(path)

    def within(self, path: Path, place: Position) -> Position | None:
        """The position of a place in the text at ``path``; of the text itself where its characters stand otherwise."""
        begin = self.value(path)
        if begin is None or path not in self.verbatim:
            return begin
        column = place.column + (begin.column - 1 if place.line == 1 else 0)
        return Position(begin.line + place.line - 1, column)


class Unreadable(Exception):
    """The text is not a document of its format. ``position`` is where that shows, None where it is not known."""

    def __init__(self, message: str, position: Position | None = None, path: Path = ()) -> None:
        super().__init__(message)
        self.position = position
        self.path = path


def refuse_constant(word: str) -> NoReturn:
    """Raise ValueError for a word such as NaN."""
    raise ValueError(f"{word} is not a finite number")


def read_float(digits: str) -> float:
    """Read a number, which must be finite. Raises ValueError."""
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def read_int(digits: str) -> int:
    """Read a whole number, which must not be absurdly long. Raises ValueError."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(TOO_MANY_DIGITS)
    return int(digits)
