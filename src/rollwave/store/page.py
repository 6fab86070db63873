"""One page of a list, by keyset: cheap at any depth, and steady while rows come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from rollwave.store.moments import Document, with_moments


@dataclass(frozen=True, slots=True)
class Page:
    """``rows`` of ``total`` in all. ``next_cursor`` asks for the next page; None: this was the last one."""

    rows: list[Document]
    total: int
    next_cursor: Any


def page(records: Sequence[asyncpg.Record], total: int, *, limit: int, key: str) -> Page:
    """Cut ``records``, fetched with ``LIMIT limit + 1``, down to a page that goes on after ``key``."""
    rows = [with_moments(record) for record in records[:limit]]
    return Page(rows, total, rows[-1][key] if len(records) > limit else None)
