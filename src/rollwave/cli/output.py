"""What commands print: tables for people, documents for programs, names for scripts.

Standard output has the data, standard error everything else.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from rollwave.client.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Format(StrEnum):
    """How a command prints its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", help="table for people, json and yaml for programs, name for ids only."),
]

Limit = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of rows.")]

_WORD = 16  # characters: a column of words up to this length does not break
_UNCUT = 10_000  # columns: nothing is cut off in a file or a pipe


def console() -> Console:
    """Standard output. Strings are printed as they are: no markup, no highlighting."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _UNCUT
    return Console(width=width, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print a line on standard output. Control characters are escaped, so that no text can control the terminal."""
    _write(sys.stdout, "\n".join(visible(line) for line in text.split("\n")))


def complain(text: str) -> None:
    """Print a line on standard error, with control characters escaped."""
    _write(sys.stderr, visible(text))


def print_json(document: object) -> None:
    """Print ``document`` indented on a terminal, on one line elsewhere. JSON itself escapes control characters."""
    _write(sys.stdout, json.dumps(document, indent=2 if sys.stdout.isatty() else None))


def print_yaml(document: object) -> None:
    """Print ``document`` as YAML. Where a string has invisible characters, all but ASCII is escaped."""
    import yaml

    readable = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=_UNCUT)
    if any(not line.isprintable() for line in readable.split("\n")):
        readable = yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=_UNCUT)
    _write(sys.stdout, readable.rstrip("\n"))


def printed(document: object, output: Format, names: Iterable[object] = ()) -> bool:
    """Print ``document`` in a format for programs, or its ``names``, one a line. False: a table is wanted."""
    match output:
        case Format.JSON:
            print_json(document)
        case Format.YAML:
            print_yaml(document)
        case Format.NAME:
            for name in names:
                say(str(name))
        case Format.TABLE:
            return False
    return True


def _write(stream: IO[str], text: str) -> None:
    """Write a line in the stream's own encoding. typer's `echo` would write UTF-8 if that is ASCII."""
    stream.write(f"{text}\n")
    stream.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, total: int = 0) -> None:
    """Print rows under headings, with numbers to the right. If there are no rows, ``empty`` is a note.

    ``total`` is the number of rows including those that are not printed. Notes are on standard error.
    """
    from rich import box
    from rich.table import Table

    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        complain(empty)
        return
    drawn = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numeric = all(_is_number(row[index].plain) for row in cells if row[index].plain)
        whole = numeric or all(len(row[index].plain) <= _WORD or _is_moment(row[index].plain) for row in cells)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in cells:
        drawn.add_row(*row)
    console().print(drawn)
    if total > len(cells):
        complain(f"{len(cells)} of {total}; --limit shows more.")


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace(",", "").removesuffix(" %").isdigit()


def _is_moment(text: str) -> bool:
    return not text or re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text) is not None


Column: TypeAlias = "str | Callable[[Mapping[str, Any]], object]"
"""What a table shows of a row: the value of this name (a time, if it ends with ``_at``), or what a function returns."""


def print_page(
    answer: Mapping[str, Any],
    output: Format,
    key: str,
    columns: Mapping[str, Column],
    *,
    empty: str,
    name: Column | None = None,
) -> None:
    """Print a list that the API answered with: as a document, or its rows under ``key`` as a table.

    ``columns`` are by their headings. ``empty`` is a note if there are no rows. ``name``: what ``-o name`` prints of
    a row; by default its first column.
    """
    first = next(iter(columns.values()))
    if printed(answer, output, (_value(row, name or first) for row in answer[key])):
        return
    rows = [[_value(row, column) for column in columns.values()] for row in answer[key]]
    table([*columns], rows, empty=empty, total=answer.get("total", 0))


def _value(row: Mapping[str, Any], column: Column) -> object:
    if callable(column):
        return column(row)
    value = row.get(column)
    return moment(value) if column.endswith("_at") else value


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print what is known of one thing, a line for each fact that has a value."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for name, value in facts:
        if value not in {None, ""}:
            grid.add_row(cell(name), cell(value))
    console().print(grid)


def cell(value: object) -> Text:
    """Format a value for a table: on a terminal, a state has its mark in its colour; nothing for None."""
    from rich.text import Text

    from rollwave.client.marks import marked

    text = "" if value is None else visible(str(value))
    return marked(text) if sys.stdout.isatty() else Text(text)


def moment(value: Any) -> str:
    """Format an RFC 3339 time of the API as local time, to the second."""
    return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else ""
