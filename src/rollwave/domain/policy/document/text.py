"""The text of a policy document: YAML or JSON in, plain data and the line and column of each value out.

YAML is read by the core schema of YAML 1.2, in which ``on``, ``no`` and times are text. Both formats give the same
data: mappings with text as keys, lists, text, numbers, booleans and None.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn, TypeAlias

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

MAX_BYTES = 64 * 1024
MAX_DEPTH = 10

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
    """The ``data`` of a document, and the position of each of its keys (in a list: of each item) by its path."""

    data: Plain
    positions: Mapping[Path, Position] = field(default_factory=dict)

    def position(self, path: Path) -> Position | None:
        """The position of the value at ``path``, or of the nearest value around it; None: it is not known."""
        for length in range(len(path), -1, -1):
            if (found := self.positions.get(path[:length])) is not None:
                return found
        return None


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
        data = json.loads(text, object_pairs_hook=_mapping, parse_constant=_no_constant, parse_float=_number)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error.msg}", Position(error.lineno, error.colno)) from error
    except RecursionError as error:
        raise Unreadable(f"the document is nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise Unreadable(str(error)) from error
    _check_depth(data)
    try:
        # JSON is YAML but for tabs between values, which are as wide as a blank here.
        return Located(data, _read_yaml(text.replace("\t", " ")).positions)
    except Unreadable:
        return Located(data)


def _mapping(pairs: Sequence[tuple[str, Plain]]) -> Mapping[str, Plain]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)} is given twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number of JSON")


def _number(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _check_depth(data: Plain, path: Path = ()) -> None:
    if len(path) > MAX_DEPTH:
        raise Unreadable(f"the document is nested deeper than {MAX_DEPTH}", path=path)
    if isinstance(data, Mapping):
        for key, value in data.items():
            _check_depth(value, (*path, key))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            _check_depth(value, (*path, number))


class _Resolver(BaseResolver):
    """The core schema of YAML 1.2, section 10.3.2."""


for _tag, _pattern in (
    ("null", r"null|Null|NULL|~|"),
    ("bool", r"true|True|TRUE|false|False|FALSE"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?(?:\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
    ),
):
    _Resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), None)


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise Unreadable("anchors and aliases are not allowed", _position(event.start_mark))
        if getattr(event, "tag", None) is not None:
            raise Unreadable("tags are not allowed", _position(event.start_mark))
        if self._depth > MAX_DEPTH:
            raise Unreadable(f"the document is nested deeper than {MAX_DEPTH}", _position(event.start_mark))
        self._depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self._depth -= 1


def _position(mark: yaml.Mark) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _read_yaml(text: str) -> Located:
    try:
        loader = _Loader(text)
        loader.get_event()  # the start of the stream
        if loader.check_event(yaml.StreamEndEvent):
            raise Unreadable("the document is empty")
        node = loader.compose_document()
        if not loader.check_event(yaml.StreamEndEvent):
            raise Unreadable("there is a second document", _position(loader.peek_event().start_mark))
    except yaml.MarkedYAMLError as error:
        problem = " ".join(each for each in (error.context, error.problem) if each)
        mark = error.problem_mark or error.context_mark
        raise Unreadable(f"not YAML: {problem}", _position(mark) if mark else None) from error
    except yaml.reader.ReaderError as error:
        raise Unreadable(f"not YAML: the character {error.character!r} is not allowed") from error
    positions: dict[Path, Position] = {(): _position(node.start_mark)}
    return Located(_plain(node, (), positions), positions)


def _plain(node: yaml.Node, path: Path, positions: dict[Path, Position]) -> Plain:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            positions[*path, number] = _position(item.start_mark)
        return [_plain(item, (*path, number), positions) for number, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Plain] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise Unreadable("a key must be text", _position(key.start_mark), path)
            if key.value == "<<":
                raise Unreadable("merge keys are not allowed", _position(key.start_mark), path)
            if key.value in found:
                raise Unreadable(f"the key {key.value} is given twice", _position(key.start_mark), path)
            positions[*path, key.value] = _position(key.start_mark)
            found[key.value] = _plain(value, (*path, key.value), positions)
        return found
    return _scalar(node, path)


def _scalar(node: yaml.Node, path: Path) -> Plain:
    text: str = node.value
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            if len(text) > 30:
                raise Unreadable("a number has more than 30 digits", _position(node.start_mark), path)
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        case "float":
            number = math.nan if text[-1:].isalpha() else float(text)  # .inf or .nan
            if not math.isfinite(number):
                raise Unreadable(f"{text} is not a finite number", _position(node.start_mark), path)
            return number
    return text
