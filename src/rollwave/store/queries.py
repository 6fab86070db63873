"""Loads named SQL: ``sql/<noun>.sql`` contains statements, each after a line ``-- name: …`` and a description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_heading = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load(noun: str) -> Mapping[str, str]:
    """Every statement of ``sql/<noun>.sql``, by name."""
    text = (files("rollwave.store") / "sql" / f"{noun}.sql").read_text("utf-8")
    _, *parts = _heading.split(text)
    return MappingProxyType({name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)})
