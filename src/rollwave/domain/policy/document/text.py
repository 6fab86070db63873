"""The text of a policy document: YAML or JSON in, plain data and the line and column of each value out.

YAML is read by the core schema of YAML 1.2, in which ``on``, ``no`` and times are text. Both formats give the same
data: mappings with text as keys, lists, text, numbers, booleans and None.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NoReturn, Protocol, TypeAlias, cast

import yaml
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

MAX_BYTES = 64 * 1024
MAX_DEPTH = 10
MAX_DIGITS = 30
TOO_DEEP = f"the document is nested deeper than {MAX_DEPTH}"
TOO_MANY_DIGITS = f"a number has more than {MAX_DIGITS} digits"

Plain: TypeAlias = "Mapping[str, Plain] | Sequence[Plain] | str | int | float | bool | None"
Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands: keys of mappings, and numbers (from 0) of lists, from the outside in."""


class Format(StrEnum):
    """The formats of a policy document."""

    YAML = "yaml"
    JSON = "json"


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


def read(text: str | bytes, form: Format) -> Located:
    """Read a document.

    Raises:
        Unreadable: it is too long, too deep or not of this format, or it uses what policies do not: anchors, aliases,
            tags, merge keys, duplicate keys, a second document.
    """
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise Unreadable(f"the document has {len(raw):,} bytes, and at most {MAX_BYTES:,} are allowed")
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"byte {error.start + 1:,} is not UTF-8") from error
    return _read_json(decoded) if form is Format.JSON else _read_yaml(decoded)


def _read_json(text: str) -> Located:
    try:
        data = json.loads(
            text, object_pairs_hook=_mapping, parse_constant=_no_constant, parse_float=_float, parse_int=_int
        )
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error.msg}", Position(error.lineno, error.colno)) from error
    except RecursionError as error:
        raise Unreadable(TOO_DEEP) from error
    except ValueError as error:
        raise Unreadable(str(error), _place_of_duplicate(text)) from error
    try:
        return replace(_json_as_yaml(text), data=data)
    except Unreadable as error:
        if str(error) == TOO_DEEP:
            raise
        return Located(data)


def _json_as_yaml(text: str) -> Located:
    """The positions of JSON. It is YAML but for tabs between values, which are as wide as a blank here."""
    return _read_yaml(text.replace("\t", " "))


def _place_of_duplicate(text: str) -> Position | None:
    try:
        _json_as_yaml(text)
    except Unreadable as error:
        return error.position
    return None


def _mapping(pairs: Sequence[tuple[str, Plain]]) -> Mapping[str, Plain]:
    found: dict[str, Plain] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key} is given twice")
        found[key] = value
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a finite number")


def _float(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(TOO_MANY_DIGITS)
    return int(digits)


_CORE_SCHEMA: Mapping[str, Callable[[str], Plain]] = {
    r"|null|Null|NULL|~": lambda _: None,
    r"true|True|TRUE": lambda _: True,
    r"false|False|FALSE": lambda _: False,
    r"[-+]?[0-9]+": _int,
    r"0o[0-7]{1,30}": lambda text: int(text, 0),
    r"0x[0-9a-fA-F]{1,30}": lambda text: int(text, 0),
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?": _float,
    r"[-+]?(?:\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN": _no_constant,
}
"""What a plain scalar means by the core schema of YAML 1.2, section 10.3.2. Anything else is text."""
CORE_PATTERNS = tuple(_CORE_SCHEMA)
_core = [(re.compile(pattern), read) for pattern, read in _CORE_SCHEMA.items()]


class _Events(Protocol):
    """The part of PyYAML's parser that is used here."""

    def check_event(self) -> bool: ...
    def get_event(self) -> yaml.Event: ...


class _Parser(Reader, Scanner, Parser):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


def _events(text: str) -> Iterator[yaml.Event]:
    parser = cast("_Events", _Parser(text))
    while parser.check_event():
        yield parser.get_event()


def _read_yaml(text: str) -> Located:
    try:
        return _Composer(text).compose()
    except yaml.MarkedYAMLError as error:
        problem = " ".join(each for each in (error.context, error.problem) if each)
        mark = error.problem_mark or error.context_mark
        raise Unreadable(f"not YAML: {problem}", _position(mark) if mark else None) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise Unreadable(f"not YAML: the character U+{error.character:04X} is not allowed", place) from error


class _Composer:
    """Makes plain data of the events of one document, and notes where each part begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._events = _events(text)
        self._keys: dict[Path, Position] = {}
        self._values: dict[Path, Position] = {}
        self._verbatim: set[Path] = set()

    def compose(self) -> Located:
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise Unreadable("the document is empty")
        data = self._value((), next(self._events))
        next(self._events)  # the end of the document
        if not isinstance(more := next(self._events), yaml.StreamEndEvent):
            raise Unreadable("there is a second document", _position(_mark(more)))
        return Located(data, self._keys, self._values, frozenset(self._verbatim))

    def _value(self, path: Path, event: yaml.Event) -> Plain:
        _refuse_extras(event)
        place = self._values[path] = _position(_mark(event))
        if len(path) > MAX_DEPTH:
            raise Unreadable(TOO_DEEP, place)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        assert isinstance(event, yaml.ScalarEvent)  # PyYAML's grammar has no other event here
        return self._scalar(path, event)

    def _mapping(self, path: Path) -> Plain:
        found: dict[str, Plain] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            _refuse_extras(event)
            place = _position(_mark(event))
            if not isinstance(event, yaml.ScalarEvent):
                raise Unreadable("a key must be text", place, path)
            key: str = event.value
            if key == "<<":
                raise Unreadable("merge keys are not allowed", place, path)
            if key in found:
                raise Unreadable(f"the key {key} is given twice", place, path)
            self._keys[*path, key] = place
            found[key] = self._value((*path, key), next(self._events))
        return found

    def _sequence(self, path: Path) -> Plain:
        found: list[Plain] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            place = (*path, len(found))
            self._keys[place] = _position(_mark(event))
            found.append(self._value(place, event))
        return found

    def _scalar(self, path: Path, event: yaml.ScalarEvent) -> Plain:
        text: str = event.value
        mark = _mark(event)
        begin = mark.index + (event.style in {"'", '"'})
        if self._text.startswith(text, begin):
            self._verbatim.add(path)
            self._values[path] = Position(mark.line + 1, mark.column + 1 + begin - mark.index)
        plain = event.style is None
        read = next((read for pattern, read in _core if plain and pattern.fullmatch(text)), str)
        try:
            return read(text)
        except ValueError as error:
            raise Unreadable(str(error), _position(mark), path) from error


def _refuse_extras(event: yaml.Event) -> None:
    place = _position(_mark(event))
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise Unreadable("anchors and aliases are not allowed", place)
    if getattr(event, "tag", None) is not None:
        raise Unreadable("tags are not allowed", place)


def _mark(event: yaml.Event) -> yaml.Mark:
    mark = event.start_mark
    assert isinstance(mark, yaml.Mark)  # this parser gives every event one
    return mark


def _position(mark: yaml.Mark) -> Position:
    return Position(mark.line + 1, mark.column + 1)
