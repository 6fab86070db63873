"""YAML by the core schema of YAML 1.2, in which ``on``, ``no`` and times are text, with the positions of its parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast

import yaml
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from rollwave.domain.policy.document.located import (
    MAX_DEPTH,
    TOO_DEEP,
    Located,
    Path,
    Plain,
    Position,
    Unreadable,
    read_float,
    read_int,
    refuse_constant,
)

_CORE_SCHEMA: Mapping[str, Callable[[str], Plain]] = {
    r"|null|Null|NULL|~": lambda _: None,
    r"true|True|TRUE": lambda _: True,
    r"false|False|FALSE": lambda _: False,
    r"[-+]?[0-9]+": read_int,
    r"0o[0-7]{1,30}": lambda text: int(text, 0),
    r"0x[0-9a-fA-F]{1,30}": lambda text: int(text, 0),
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?": read_float,
    r"[-+]?(?:\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN": refuse_constant,
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


def read_yaml(text: str) -> Located:
    """Read YAML.

    Raises:
        Unreadable: it is not YAML, or uses what policies do not.
    """
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
