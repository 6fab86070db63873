"""Named SQL: ``sql/<noun>.sql`` holds statements, each under a line ``-- name: …`` and a line of prose."""

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
