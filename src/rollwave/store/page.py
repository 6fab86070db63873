"""One page of a list, by keyset pagination: it costs the same at any position, and rows may be added or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from rollwave.store.moments import Document, with_moments


@dataclass(frozen=True, slots=True)
class Page:
    """A page of ``rows``, and the ``total`` over all pages. ``next_cursor`` None: this is the last page."""

    rows: list[Document]
    total: int
    next_cursor: Any


def page(records: Sequence[asyncpg.Record], total: int, *, limit: int, key: str) -> Page:
    """Make a page from ``records``, fetched with ``LIMIT limit + 1``. ``key``: the column of the cursor."""
    rows = [with_moments(record) for record in records[:limit]]
    return Page(rows, total, rows[-1][key] if len(records) > limit else None)
