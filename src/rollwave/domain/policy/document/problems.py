"""What is wrong with a policy document: where, what, and a suggestion."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

from rollwave.domain.policy.document import checks
from rollwave.domain.policy.document.fields import CODE_PATTERN, KEY_PATTERN, NAME_PATTERN
from rollwave.domain.policy.document.located import MAX_DEPTH, TOO_DEEP, Located, Path, Plain, Position, Unreadable
from rollwave.domain.policy.document.model import ORDER_PATTERN, PolicyDocument
from rollwave.domain.policy.document.text import MAX_BYTES, Format, read, read_json, with_positions
from rollwave.errors import InvalidInput

MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``position`` is None where the document did not come as text."""

    path: Path
    message: str
    hint: str = ""
    position: Position | None = None

    @property
    def where(self) -> str:
        """The path as people write it: ``waves[0].gate.soak``."""
        text = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in self.path)
        return text.removeprefix(".")

    @property
    def placed(self) -> str:
        """Its position, if that is known, and what is wrong, without the path."""
        return self._place + self._said

    @property
    def _place(self) -> str:
        return f"line {self.position.line}, column {self.position.column}: " if self.position else ""

    @property
    def _said(self) -> str:
        return self.message + (f" ({self.hint})" if self.hint else "")

    def __str__(self) -> str:
        return self._place + (f"{self.where}: " if self.path else "") + self._said


class InvalidPolicy(InvalidInput):
    """A policy document breaks the format's rules. ``problems`` are those that were found, in the document's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first, more = problems[0], len(problems) - 1
        super().__init__(str(first) + (f" (and {more} more)" if more else ""), field="policy")
        self.problems = tuple(problems[:MAX_PROBLEMS])


def parse(text: str | bytes, form: Format) -> PolicyDocument:
    """Read a document from its text.

    Raises:
        InvalidPolicy: the text cannot be read, or a key or a value breaks a rule.
    """
    try:
        located = read(text, form)
    except Unreadable as error:
        raise InvalidPolicy([Problem(error.path, str(error), position=error.position)]) from error
    try:
        return validate(located)
    except InvalidPolicy:
        if form is Format.YAML:
            raise
    return validate(with_positions(located, text))  # which takes much longer than reading JSON


def parse_data(data: Plain) -> PolicyDocument:
    """Read a document from the plain data that a caller's JSON has in one of its fields.

    Raises:
        InvalidPolicy: it is too large, or a key or a value breaks a rule.
    """
    try:
        size = len(json.dumps(data, ensure_ascii=False).encode(errors="surrogatepass"))
    except RecursionError as error:
        raise InvalidPolicy([Problem((), TOO_DEEP)]) from error
    if size > MAX_BYTES:
        raise InvalidPolicy([Problem((), f"the document has {size:,} bytes, and at most {MAX_BYTES:,} are allowed")])
    return validate(Located(data))


def parse_member(body: bytes, key: str) -> PolicyDocument:
    """Read the document that a JSON object has under ``key``, whose own keys may not be given twice either.

    Raises:
        InvalidPolicy: the object has a key twice, or the document breaks a rule.
    """
    try:
        data = read_json(body.decode("utf-8-sig")).data
    except Unreadable as error:
        raise InvalidPolicy([Problem(error.path, str(error), position=error.position)]) from error
    assert isinstance(data, Mapping)  # the caller has read it before, as a request
    return parse_data(data[key])


def validate(document: Located) -> PolicyDocument:
    """Check the data of a document. Its size is not checked.

    Raises:
        InvalidPolicy: a key or a value breaks a rule.
    """
    found = list(_unstorable(document.data, ()))
    problems = [Problem(path, message, hint, document.value(path)) for path, message, hint in found]
    if not problems:
        try:
            valid = PolicyDocument.model_validate(document.data)
        except ValidationError as error:
            problems = [_problem(each, document) for each in _causes(error)]
        else:
            problems = [_of_fault(each, document) for each in checks.faults(valid)]
            if not problems:
                return valid
    last = Position(10**9, 0)
    problems.sort(key=lambda each: ((each.position or last).line, (each.position or last).column))
    raise InvalidPolicy(problems)


def _causes(error: ValidationError) -> list[Any]:
    """The errors, without lists that are too short since their items are not valid."""
    errors = error.errors(include_url=False)
    around = {each["loc"][:-1] for each in errors}
    return [each for each in errors if each["type"] != "too_short" or each["loc"] not in around]


def _of_fault(fault: checks.Fault, document: Located) -> Problem:
    message, place = fault.message, fault.place
    if place is None:
        return Problem(fault.path, message, fault.hint, document.value(fault.path))
    if fault.path not in document.verbatim:  # then the position in the document does not show where it is
        message += f", in line {place.line}, column {place.column} of this text"
    return Problem(fault.path, message, fault.hint, document.within(fault.path, place))


_not_text = re.compile("[\x00\ud800-\udfff]")


def _unstorable(data: Plain, path: Path) -> Iterator[tuple[Path, str, str]]:
    """What no document may have, wherever it stands: (path, message, hint)."""
    if len(path) > MAX_DEPTH:
        yield path[:MAX_DEPTH], TOO_DEEP, ""
    elif data is None and path:
        yield path, "has no value", "leave the key out for its default"
    elif isinstance(data, str) and _not_text.search(data):
        yield path, "has a NUL character or half of a surrogate pair", ""
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if _not_text.search(key):
                yield path, "has a key with a NUL character or half of a surrogate pair", ""
            else:
                yield from _unstorable(value, (*path, key))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from _unstorable(value, (*path, number))


def _problem(error: Any, document: Located) -> Problem:
    context = error.get("ctx") or {}
    path: Path = (*error["loc"], *context.get("at", ()))
    message, hint = _SAID.get(error["type"], _as_pydantic_says)(error, context)
    of_key = error["type"] == "extra_forbidden"
    return Problem(path, message, hint, document.key(path) if of_key else document.value(path))


Said: TypeAlias = tuple[str, str]
"""The message of a problem, and its hint."""


def _unknown_key(error: Any, _context: Any) -> Said:
    *around, key = error["loc"]
    known = list(_keys_at(around))
    meant = get_close_matches(str(key), known, n=1)
    return "unknown key", f"did you mean {meant[0]}?" if meant else f"known are {', '.join(known)}"


def _unknown_word(error: Any, context: Any) -> Said:
    expected: str = context["expected"].replace("'", "")
    meant = get_close_matches(str(error["input"]), expected.replace(" or ", ", ").split(", "), n=1)
    return f"must be {expected}", f"did you mean {meant[0]}?" if meant else ""


_FORMS: Mapping[str, str] = {
    NAME_PATTERN: "a name: a letter or digit, then letters, digits, '.', '_' and '-'",
    KEY_PATTERN: "the key of a label: a letter or '_', then letters, digits, '_', '.', ':' and '-'",
    CODE_PATTERN: "a code: up to 64 capital letters, digits and '_'",
    ORDER_PATTERN: "hash, id, or label:<key>",
}
"""What a text must be, by the pattern that it does not match."""


def _wrong_form(error: Any, context: Any) -> Said:
    wanted = _FORMS.get(context["pattern"], f"of the form {context['pattern']}")
    return f"{str(error['input'])[:80]!r} is not {wanted}", ""


def _too_long(_error: Any, context: Any) -> Said:
    return f"has {context['actual_length']} items, and at most {context['max_length']} are allowed", ""


def _as_pydantic_says(error: Any, _context: Any) -> Said:
    return error["msg"][:1].lower() + error["msg"][1:], ""


def _always(message: str, hint: str = "") -> Callable[[Any, Any], Said]:
    return lambda _error, _context: (message, hint)


_MAPPING, _LIST = _always("must be a mapping of keys to values"), _always("must be a list")
_SAID: Mapping[str, Callable[[Any, Any], Said]] = {
    "policy_value": lambda _, context: (context["text"], ""),
    "policy_rule": lambda _, context: (context["text"], ""),
    "extra_forbidden": _unknown_key,
    "missing": _always("is missing"),
    "enum": _unknown_word,
    "string_pattern_mismatch": _wrong_form,
    "too_long": _too_long,
    "too_short": _always("needs at least one item", "leave the key out for its default"),
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": _LIST,
    "string_type": _always("must be text"),
    "bool_type": _always("must be true or false"),
    "float_type": _always("must be a number"),
}


def _keys_at(path: Sequence[str | int]) -> Iterator[str]:
    """The keys of the mapping at ``path``, as the format has them."""
    model: Any = PolicyDocument
    for step in path:
        if isinstance(step, str):
            names = {field.alias or name: field for name, field in model.model_fields.items()}
            if step not in names:
                return
            model = _model_in(names[step].annotation)
            if model is None:
                return
    yield from (field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)
