"""Reads forms, and says what is wrong beside their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from rollwave.api.fields import RULES
from rollwave.errors import RollwaveError

Model = TypeVar("Model", bound=BaseModel)

Fields = dict[str, list[str]]
"""The values of a form's fields, by name, in the order in which they were sent."""

Messages = dict[str, str]
"""What is wrong with a form, by field. The empty name: with the form as a whole."""


async def fields(request: Request) -> Fields:
    """The fields of the request's form. Files are left out."""
    found: Fields = {}
    for name, value in (await request.form()).multi_items():
        if isinstance(value, str):
            found.setdefault(name, []).append(value)
    return found


def first(given: Fields, name: str) -> str:
    """The value of a field without blanks around it; empty: it was not sent."""
    return (given.get(name) or [""])[0].strip()


def check(model: type[Model], values: Mapping[str, str]) -> Model | Messages:
    """The request that the API would take, from texts of which empty ones are left out; or what is wrong with them."""
    try:
        return model.model_validate({name: value for name, value in values.items() if value}, strict=False)
    except ValidationError as error:
        return _messages(error.errors())


def _messages(errors: list[Any]) -> Messages:
    found: Messages = {}
    for each in errors:
        detail = RULES.get((each.get("ctx") or {}).get("pattern", ""), each["msg"])
        said = "This is required." if each["type"] == "missing" else detail
        found.setdefault(str(each["loc"][0]) if each["loc"] else "", said)
    return found


def refused(error: RollwaveError, names: Mapping[str, str] | None = None) -> Messages:
    """What the engine says about a form, beside the field that it names. ``names``: the form's names, by the API's."""
    field = getattr(error, "field", "")
    said = getattr(error, "fault", "") if field else str(error)
    said = said[:1].upper() + said[1:]
    return {(names or {}).get(field, field): f"{said}{'' if said.endswith('.') else '.'} {error.hint}".strip()}
