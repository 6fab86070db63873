"""Lists as files: CSV for spreadsheets, JSON for programs, written page by page however long they are."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from fastapi.responses import StreamingResponse

from rollwave.api.live.hub import KEY_SECONDS
from rollwave.errors import Forbidden
from rollwave.store import access
from rollwave.store.access import Grant
from rollwave.store.database import Pool
from rollwave.store.page import Page

Form = Literal["csv", "json"]

PAGE = 1000
"""Rows that are read at a time."""

MAX_LABELS = 20
"""Maximum number of labels with a column of their own: the first in order, of the devices of the first page."""

NextPage: TypeAlias = Callable[[Any], Awaitable[Page]]
"""Reads the page after a cursor; None: the first one."""

_Pages: TypeAlias = AsyncIterator[list[dict[str, Any]]]

_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Reader(NamedTuple):
    """Whoever downloads: their key is checked again while the file is written."""

    pool: Pool
    grant: Grant
    key_seconds: float = KEY_SECONDS

    async def is_valid(self) -> bool:
        """Whether the key is still valid."""
        return await access.recheck(self.pool, self.grant.tenant_id, self.grant.key_id) is not None


async def download(
    form: Form, parts: Sequence[str], columns: Sequence[str], read: NextPage, reader: Reader, *, labels: str = ""
) -> StreamingResponse:
    """All rows of a list as a file. The first page is read before the answer begins, so that its errors are shown.

    Args:
        parts: of the file's name, which ends with the date. Empty ones are left out.
        reader: if their key expires or is revoked meanwhile, the connection is broken off: the file must not look
            complete.
        labels: the column with labels, of which each gets a column of its own in CSV, beside that with all of them.
    """
    began = await read(None)
    pages = _pages(began, read, reader)
    write = _csv(columns, began, pages, labels) if form == "csv" else _json(columns, pages)
    headers = {"Content-Disposition": f'attachment; filename="{file_name(parts, datetime.now(UTC))}.{form}"'}
    return StreamingResponse(write, media_type=_TYPES[form], headers=headers)


def file_name(parts: Sequence[str], at: datetime) -> str:
    """The name of a file from its parts and the date, such as ``devices-2.1.0-2026-11-29``."""
    plain = [re.sub(r"[^A-Za-z0-9._]+", "-", each).strip("-.")[:60] for each in parts]
    return "-".join([*(each for each in plain if each), f"{at:%Y-%m-%d}"])


async def _csv(columns: Sequence[str], began: Page, pages: _Pages, labels: str) -> AsyncIterator[str]:
    keys = sorted({key for row in began.rows for key in row.get(labels) or {}})[:MAX_LABELS]
    yield _line([*columns, *(_cell(f"label.{key}") for key in keys)])
    async for rows in pages:
        yield "".join(_line([_cell(each) for each in _values(row, columns, labels, keys)]) for row in rows)


def _values(row: dict[str, Any], columns: Sequence[str], labels: str, keys: Sequence[str]) -> list[object]:
    own = row.get(labels) or {}
    return [*(row.get(column) for column in columns), *(own.get(key) for key in keys)]


async def _json(columns: Sequence[str], pages: _Pages) -> AsyncIterator[str]:
    yield "["
    comma = "\n"
    async for rows in pages:
        for row in rows:
            picked = {column: row.get(column) for column in columns}
            yield comma + json.dumps(picked, default=_text, ensure_ascii=False)
            comma = ",\n"
    yield "\n]\n"


async def _pages(began: Page, read: NextPage, reader: Reader) -> _Pages:
    found, check_at = began, time.monotonic() + reader.key_seconds
    while True:
        yield found.rows
        if found.next_cursor is None:
            return
        if time.monotonic() >= check_at:
            if not await reader.is_valid():
                raise Forbidden("the key has expired or was revoked during a download")
            check_at = time.monotonic() + reader.key_seconds
        found = await read(found.next_cursor)


def _line(cells: Sequence[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return written.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else _text(value)
    # Spreadsheets run such a cell as a formula. The JSON file has the text as it is.
    return f"'{text}" if text.startswith(_FORMULA) else text


def _text(value: object) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    written: str = value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else str(value)
    return written
