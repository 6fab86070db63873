"""The text of a policy document: YAML or JSON in, plain data and the line and column of each value out.

Both formats give the same data: mappings with text as keys, lists, text, numbers, booleans and None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from rollwave.domain.policy.document.located import (
    TOO_DEEP,
    Located,
    Plain,
    Position,
    Unreadable,
    read_float,
    read_int,
    refuse_constant,
)
from rollwave.domain.policy.document.yaml_text import read_yaml

MAX_BYTES = 64 * 1024


class Format(StrEnum):
    """The formats of a policy document."""

    YAML = "yaml"
    JSON = "json"


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
    return read_json(decoded) if form is Format.JSON else read_yaml(decoded)


def read_json(text: str) -> Located:
    """Read JSON without its positions, of any size.

    Raises:
        Unreadable: it is not JSON, has a key twice, or a number that no policy can have.
    """
    try:
        data = json.loads(
            text, object_pairs_hook=_mapping, parse_constant=refuse_constant, parse_float=read_float, parse_int=read_int
        )
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error.msg}", Position(error.lineno, error.colno)) from error
    except RecursionError as error:
        raise Unreadable(TOO_DEEP) from error
    except ValueError as error:
        raise Unreadable(str(error), _place_of_duplicate(text)) from error
    return Located(data)


def with_positions(document: Located, text: str | bytes) -> Located:
    """A document that was read from JSON, with its positions where they can be found."""
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        return replace(_json_as_yaml(decoded), data=document.data)
    except Unreadable:
        return document


def _json_as_yaml(text: str) -> Located:
    """The positions of JSON. It is YAML but for tabs between values, which are as wide as a blank here."""
    return read_yaml(text.replace("\t", " "))


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
