"""Selectors: text that says which devices are meant, such as ``ring == canary and not has(quarantined)``.

The operators of RSQL (``;`` ``,`` ``=in=`` ``=out=`` ``=lt=`` ``=le=`` ``=gt=`` ``=ge=``) mean the same as the words,
so that filters written for hawkBit work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from lark import Lark, Token, Transformer, UnexpectedInput, v_args
from lark.exceptions import VisitError

from rollwave.domain.policy.document.text import Position

MAX_BYTES, MAX_COMPARISONS, MAX_DEPTH, MAX_DIGITS = 4096, 32, 8, 30
VERSION, LAST_SEEN = "version", "last_seen"
TEXT_KEYS = frozenset({"device_id", "device_type", "time_zone"})
"""Built-in labels that are text, whatever they look like."""

LabelValue: TypeAlias = str | int | float | bool | datetime | None | list[Any] | dict[str, Any]

_GRAMMAR = r"""
start: either
?either: both (("or" | ",") both)*
?both: negated (("and" | ";") negated)*
?negated: "not" negated -> negation
        | "(" either ")"
        | "has" "(" _key ")" -> has
        | _key "like" _text -> like
        | _key OPERATOR value -> compare
        | _key ("in" | _IN) _values -> one_of
        | _key ("not" "in" | _OUT) _values -> none_of
_values: "(" value ("," value)* ")"
_key: WORD
_text: WORD | QUOTED
value: WORD | QUOTED

_IN.2: "=in="
_OUT.2: "=out="
OPERATOR: "==" | "=" | "!=" | "<=" | ">=" | "<" | ">" | "=lt=" | "=le=" | "=gt=" | "=ge="
WORD: /(?!(?:and|or|not|in|like|has)(?![A-Za-z0-9_.:+-]))[A-Za-z0-9_.:+-]+/
QUOTED: /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/s
%import common.WS
%ignore WS
"""


class Operator(StrEnum):
    """How a label is compared."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


_OPERATORS = {"=": Operator.EQ, "=lt=": Operator.LT, "=le=": Operator.LE, "=gt=": Operator.GT, "=ge=": Operator.GE}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as written: its ``text``, and the ``number`` that an unquoted one may be."""

    text: str
    number: int | float | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """``key operator value``; false where the label is absent, ``!=`` true."""

    key: str
    operator: Operator
    value: Literal


@dataclass(frozen=True, slots=True)
class OneOf:
    """``key in (values)``; false where the label is absent."""

    key: str
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Has:
    """The label is there."""

    key: str


@dataclass(frozen=True, slots=True)
class Like:
    """The label is text of this pattern, in which ``*`` stands for any text."""

    key: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Selector


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Selector, ...]


@dataclass(frozen=True, slots=True)
class Any_:
    """At least one part holds."""

    parts: tuple[Selector, ...]


Selector: TypeAlias = Compare | OneOf | Has | Like | Not | All | Any_


class UnreadableSelector(ValueError):
    """The text is no selector. ``position`` counts from its beginning."""

    def __init__(self, message: str, position: Position | None = None) -> None:
        place = f"line {position.line}, column {position.column}: " if position else ""
        super().__init__(place + message)
        self.position = position


_EXPECTED = {
    "WORD": "a key or a value",
    "QUOTED": "a value",
    "OPERATOR": "an operator such as ==",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "$END": "the end",
}


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Builds a :class:`Selector` from lark's tree."""

    def start(self, part: Selector) -> Selector:
        return part

    def either(self, *parts: Selector) -> Selector:
        return Any_(parts)

    def both(self, *parts: Selector) -> Selector:
        return All(parts)

    def negation(self, part: Selector) -> Selector:
        return Not(part)

    def has(self, key: Token) -> Selector:
        return Has(_key(key))

    def like(self, key: Token, text: Token) -> Selector:
        return Like(_key(key), _literal(text).text)

    def compare(self, key: Token, operator: Token, value: Literal) -> Selector:
        return Compare(_key(key), _OPERATORS.get(operator) or Operator(operator), value)

    def one_of(self, key: Token, *values: Literal) -> Selector:
        return OneOf(_key(key), values)

    def none_of(self, key: Token, *values: Literal) -> Selector:
        return Not(OneOf(_key(key), values))

    def value(self, token: Token) -> Literal:
        return _literal(token)


_parser = Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=False)


def parse(text: str) -> Selector:
    """Read a selector.

    Raises:
        UnreadableSelector: it is none, or over a limit. The message says where, and what was expected.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise UnreadableSelector(f"the selector is longer than {MAX_BYTES:,} bytes")
    try:
        found: Selector = _Builder().transform(_parser.parse(text))
    except UnexpectedInput as error:
        wanted = (
            getattr(error, "accepts", None) or getattr(error, "expected", None) or getattr(error, "allowed", None) or ()
        )
        names = sorted({_EXPECTED.get(each, each.strip("_").lower()) for each in wanted})
        got = getattr(error, "token", None)
        shown = repr(str(got)) if got else repr(text[error.pos_in_stream or 0]) if got is None else "the end"
        raise UnreadableSelector(
            f"{shown} is not expected here, but {', '.join(names)}", Position(max(error.line, 1), max(error.column, 1))
        ) from error
    except VisitError as error:
        raise error.orig_exc from error
    _check_limits(found)
    return found


def _key(token: Token) -> str:
    if not _KEY.fullmatch(token):
        raise UnreadableSelector(f"{str(token)!r} is not a key", _at(token))
    return str(token)


def _literal(token: Token) -> Literal:
    if token.type == "QUOTED":
        return Literal(re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL))
    text = str(token)
    if not _NUMBER.fullmatch(text):
        return Literal(text)
    if sum(each.isdigit() for each in text) > MAX_DIGITS:
        raise UnreadableSelector(f"a number has more than {MAX_DIGITS} digits", _at(token))
    return Literal(text, int(text) if text.lstrip("-").isdigit() else float(text))


def _at(token: Token) -> Position:
    return Position(token.line or 1, token.column or 1)


def _check_limits(selector: Selector) -> None:
    comparisons, deepest = 0, 0
    todo: list[tuple[Selector, int, bool]] = [(selector, 1, False)]
    while todo:
        part, depth, narrowed = todo.pop()
        deepest = max(deepest, depth)
        if isinstance(part, All):
            narrow = narrowed or any(_is_equality(each) for each in part.parts)
            todo += [(each, depth + 1, narrow) for each in part.parts]
        elif isinstance(part, Any_):
            todo += [(each, depth + 1, narrowed) for each in part.parts]
        elif isinstance(part, Not):
            todo.append((part.part, depth + 1, narrowed))
        else:
            comparisons += len(part.values) if isinstance(part, OneOf) else 1
            if isinstance(part, Like) and part.pattern.startswith("*") and not narrowed:
                raise UnreadableSelector(
                    f"like {part.pattern!r} begins with * and would read every device: add an equality with `and`"
                )
    if comparisons > MAX_COMPARISONS:
        raise UnreadableSelector(f"{comparisons} comparisons, and at most {MAX_COMPARISONS} are allowed")
    if deepest > MAX_DEPTH:
        raise UnreadableSelector(f"the selector is nested deeper than {MAX_DEPTH}")


def _is_equality(part: Selector) -> bool:
    return isinstance(part, OneOf) or (isinstance(part, Compare) and part.operator is Operator.EQ)
