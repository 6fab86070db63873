"""Reads the text of selectors.

The operators of RSQL (``;`` ``,`` ``=in=`` ``=out=`` ``=lt=`` ``=le=`` ``=gt=`` ``=ge=``) mean the same as the words,
so that filters written for hawkBit work.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args
from lark.exceptions import VisitError

from rollwave.domain.policy.document.located import Position
from rollwave.domain.policy.document.units import read_time
from rollwave.domain.policy.selector.model import (
    DEVICE_ID,
    DEVICE_TYPE,
    LAST_SEEN,
    TIME_ZONE,
    VERSION,
    AllOf,
    AnyOf,
    Compare,
    Has,
    Like,
    Not,
    OneOf,
    Operator,
    Selector,
    Value,
)
from rollwave.errors import InvalidInput

MAX_BYTES, MAX_COMPARISONS, MAX_DEPTH, MAX_DIGITS = 4096, 32, 8, 30
LONGEST_AGE_DAYS = 36_500

_TEXT_KEYS = frozenset({DEVICE_ID, DEVICE_TYPE, TIME_ZONE, VERSION})
"""Built-in labels that are compared with text, also where it looks like a number."""

# KEY leaves out the words of the grammar. A value may be one of them: the parser knows that only a value can follow.
_GRAMMAR = r"""
start: _either
_either: either | _both
either: _both (("or" | ",") _both)+
_both: both | _single
both: _single (("and" | ";") _single)+
_single: negation | has | like | compare | one_of | none_of | "(" _either ")"
negation: "not" _single
has: "has" "(" KEY ")"
like: KEY "like" (BARE | QUOTED)
compare: KEY OPERATOR (BARE | QUOTED)
one_of: KEY ("in" | _IN) _values
none_of: KEY ("not" "in" | _OUT) _values
_values: "(" (BARE | QUOTED) ("," (BARE | QUOTED))* ")"

_IN.2: "=in="
_OUT.2: "=out="
OPERATOR: "==" | "=" | "!=" | "<=" | ">=" | "<" | ">" | "=lt=" | "=le=" | "=gt=" | "=ge="
KEY: /(?!(?:and|or|not|in|like|has)(?![A-Za-z0-9_.:-]))[A-Za-z_][A-Za-z0-9_.:-]*/
BARE: /[A-Za-z0-9_.:+-]+/
QUOTED: /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/s
%import common.WS
%ignore WS
"""

_NAMES = {
    "KEY": "a key",
    "BARE": "a value",
    "QUOTED": "a value",
    "OPERATOR": "an operator such as ==",
    "_IN": "in",
    "_OUT": "not in",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "a comma",
    "SEMICOLON": "and",
    "$END": "the end",
}
"""The names of terminals in messages. A word of the grammar is named as it is written."""

_OPERATORS = {"=": Operator.EQ, "=lt=": Operator.LT, "=le=": Operator.LE, "=gt=": Operator.GT, "=ge=": Operator.GE}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4})?")
_AGE = re.compile(r"-([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class UnreadableSelector(InvalidInput):
    """The text is no selector, or over a limit. ``position`` counts from its beginning; None: the text as a whole."""

    def __init__(self, message: str, position: Position | None = None, *, hint: str = "") -> None:
        place = f"line {position.line}, column {position.column}: " if position else ""
        super().__init__(place + message, hint=hint)
        self.position = position


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes a :data:`Selector` of each rule that the parser has found."""

    def start(self, part: Selector) -> Selector:
        return part

    def either(self, *parts: Selector) -> Selector:
        return AnyOf(parts)

    def both(self, *parts: Selector) -> Selector:
        return AllOf(parts)

    def negation(self, part: Selector) -> Selector:
        return Not(part)

    def has(self, key: Token) -> Selector:
        return Has(str(key), _at(key))

    def like(self, key: Token, pattern: Token) -> Selector:
        if key == LAST_SEEN:
            raise UnreadableSelector("last_seen is a time and has no pattern: compare it with < or >", _at(pattern))
        return Like(str(key), _unquoted(pattern), _at(pattern))

    def compare(self, key: Token, operator: Token, value: Token) -> Selector:
        return Compare(str(key), _OPERATORS.get(operator) or Operator(operator), _value(key, value), _at(value))

    def one_of(self, key: Token, *values: Token) -> Selector:
        return OneOf(str(key), tuple(_value(key, each) for each in values), _at(values[0]))

    def none_of(self, key: Token, *values: Token) -> Selector:
        return Not(self.one_of(key, *values))


@cache
def _parser() -> Lark:
    """Made when it is first needed, since most commands read no selector.

    The builder works while the parser reads, so that no depth of nesting is too much for Python's stack.
    """
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", transformer=_Builder())


def parse(text: str) -> Selector:
    """Read a selector.

    Raises:
        UnreadableSelector: it is none, or over a limit. The message says where, and what was expected.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise UnreadableSelector(f"the selector is longer than {MAX_BYTES:,} bytes")
    try:
        found = cast("Selector", _parser().parse(text))
    except UnexpectedInput as error:
        raise _unexpected(error, text) from error
    except VisitError as error:
        raise error.orig_exc from error
    _check_limits(found)
    return found


_WORDS = frozenset({"and", "or", "not", "in", "like", "has"})


def _unexpected(error: UnexpectedInput, text: str) -> UnreadableSelector:
    wanted: Any = ()
    shown, at = "the end", _end_of(text)
    if isinstance(error, UnexpectedToken):
        wanted = error.accepts or error.expected
        if error.token.type != "$END":
            shown, at = repr(str(error.token)), _at(error.token)
    elif isinstance(error, UnexpectedCharacters):
        wanted = error.allowed or ()
        place: Any = error.pos_in_stream
        shown, at = repr(text[place]), Position(error.line, error.column)
        if shown[1] in "'\"":
            return UnreadableSelector("the text that begins here has no closing quote", at)
    expected = sorted({_NAMES.get(each, each.lower()) for each in wanted})
    hint = "Patterns need quotes and like: name like 'abc*'." if shown == "'*'" else ""
    if (word := shown.strip("'").lower()) in _WORDS and shown != f"'{word}'":
        hint = f"Write it in lower case: {word}."
    return UnreadableSelector(f"{shown} is not expected here; expected: {', '.join(expected)}", at, hint=hint)


def _end_of(text: str) -> Position:
    before = text.rstrip()
    return Position(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _at(token: Token) -> Position:
    return Position(token.line or 1, token.column or 1)


def _unquoted(token: Token) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL) if token.type == "QUOTED" else str(token)


def _value(key: str, token: Token) -> Value:
    text = _unquoted(token)
    if key == LAST_SEEN:
        return _time(text, _at(token))
    if key in _TEXT_KEYS or token.type == "QUOTED" or not _NUMBER.fullmatch(text):
        return text
    number = Decimal(text)
    digits = number.as_tuple()
    exponent = int(digits.exponent)
    if max(len(digits.digits) + max(exponent, 0), -exponent) > MAX_DIGITS:
        raise UnreadableSelector(f"a number has more than {MAX_DIGITS} digits", _at(token))
    return number


def _time(text: str, at: Position) -> datetime | timedelta:
    if age := _AGE.fullmatch(text):
        seconds = Decimal(age[1]) * _UNIT_SECONDS[age[2]]
        if seconds > LONGEST_AGE_DAYS * 86_400:
            raise UnreadableSelector(f"{text} is more than {LONGEST_AGE_DAYS:,} days ago", at)
        return timedelta(microseconds=-int(seconds * 1_000_000))
    try:
        return read_time(text)
    except ValueError as error:
        expected = "a time with a zone such as 2027-01-11T08:00:00Z, or how long ago, such as -7d"
        raise UnreadableSelector(f"{text!r} is not expected here; expected: {expected}", at) from error


def _check_limits(selector: Selector) -> None:
    comparisons = 0
    todo: list[tuple[Selector, int, bool, bool]] = [(selector, 1, False, False)]
    while todo:
        part, depth, narrowed, negated = todo.pop()
        if depth > MAX_DEPTH:
            raise UnreadableSelector(f"the selector is nested deeper than {MAX_DEPTH}", _first(part))
        if isinstance(part, AllOf | AnyOf):
            # Beside an equality, only the devices of one value are read. What is negated says nothing of that kind.
            narrow = narrowed or (isinstance(part, AllOf) and not negated and any(map(_is_equality, part.parts)))
            todo += [(each, depth + 1, narrow, negated) for each in reversed(part.parts)]
        elif isinstance(part, Not):
            todo.append((part.part, depth if isinstance(part.part, OneOf) else depth + 1, narrowed, not negated))
        else:
            comparisons += len(part.values) if isinstance(part, OneOf) else 1
            if comparisons > MAX_COMPARISONS:
                raise UnreadableSelector(f"the selector has more than {MAX_COMPARISONS} comparisons", part.at)
            if isinstance(part, Like) and part.pattern.startswith("*") and not narrowed:
                raise UnreadableSelector(
                    f"the pattern {part.pattern!r} begins with *, so every device would have to be read",
                    part.at,
                    hint="Add an equality: site == north and name like '*-a'.",
                )


def _first(selector: Selector) -> Position:
    while isinstance(selector, AllOf | AnyOf | Not):
        selector = selector.part if isinstance(selector, Not) else selector.parts[0]
    return selector.at


def _is_equality(part: Selector) -> bool:
    return isinstance(part, OneOf) or (isinstance(part, Compare) and part.operator is Operator.EQ)
