"""What is wrong with a policy document: where, what, and what may have been meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.text import Format, Located, Path, Plain, Position, Unreadable, read
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

    def __str__(self) -> str:
        place = f"line {self.position.line}, column {self.position.column}: " if self.position else ""
        named = f"{self.where}: " if self.path else ""
        return f"{place}{named}{self.message}" + (f" ({self.hint})" if self.hint else "")


class InvalidPolicy(InvalidInput):
    """A policy document breaks the format's rules. ``problems`` are all that were found, in the document's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first, more = problems[0], len(problems) - 1
        super().__init__(str(first) + (f", and {more} more" if more else ""), field="policy")
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
    return validate(located)


def validate(document: Located) -> PolicyDocument:
    """Check plain data.

    Raises:
        InvalidPolicy: a key or a value breaks a rule.
    """
    try:
        return PolicyDocument.model_validate(document.data)
    except ValidationError as error:
        found = [_problem(each, document) for each in error.errors(include_url=False)]
        last = Position(10**9, 0)
        found.sort(key=lambda each: ((each.position or last).line, (each.position or last).column))
        raise InvalidPolicy(found) from error


def _problem(error: Any, document: Located) -> Problem:
    path: Path = error["loc"]
    message, hint = _said(error, document.data)
    return Problem(path, message, hint, document.position(path))


def _said(error: Any, data: Plain) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx") or {}
    *around, key = error["loc"] or (None,)
    match kind:
        case "policy":
            return context["text"], ""
        case "extra_forbidden":
            known = list(_keys_at(around))
            meant = get_close_matches(str(key), known, n=1)
            return "unknown key", f"did you mean {meant[0]}?" if meant else f"known are {', '.join(known)}"
        case "missing":
            return "is missing", ""
        case "enum" | "literal_error":
            known = [each.strip("' ") for each in context["expected"].replace(" or ", ", ").split(",")]
            meant = get_close_matches(str(error["input"]), known, n=1)
            return f"must be {context['expected'].replace(chr(39), '')}", f"did you mean {meant[0]}?" if meant else ""
        case "string_pattern_mismatch":
            return f"{error['input']!r} is not of the form {context['pattern']}", ""
        case "too_long":
            return f"has {context['actual_length']} items, and at most {context['max_length']} are allowed", ""
        case "too_short":
            return "needs at least one item", "leave the key out for its default"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a mapping of keys to values", ""
        case "tuple_type":
            return "must be a list", ""
        case "string_type":
            return "must be text", ""
        case "bool_type":
            return "must be true or false", ""
    return error["msg"][:1].lower() + error["msg"][1:], ""


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
