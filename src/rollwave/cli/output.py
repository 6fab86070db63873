"""What commands print: tables for people, the API's own JSON for programs."""

from __future__ import annotations

import json
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


Output = Annotated[Format, typer.Option("--output", "-o", help="table for people, json for programs.")]

Limit = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of rows.")]

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


def _write(stream: IO[str], text: str) -> None:
    """Write a line in the stream's own encoding. typer's `echo` would write UTF-8 if that is ASCII."""
    stream.write(f"{text}\n")
    stream.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, total: int = 0) -> None:
    """Print rows under headings, with numbers to the right. If there are no rows, print ``empty``.

    ``total`` is the number of rows including those that are not printed.
    """
    from rich import box
    from rich.table import Table

    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        say(empty)
        return
    drawn = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numeric = all(row[index].plain.replace(".", "").isdigit() for row in cells if row[index].plain)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*row)
    console().print(drawn)
    if total > len(cells):
        say(f"{len(cells)} of {total}; --limit shows more.")


Column: TypeAlias = "str | Callable[[Mapping[str, Any]], object]"
"""What a table shows of a row: the value of this name (a time, if it ends with ``_at``), or what a function returns."""


def print_page(
    answer: Mapping[str, Any], output: Format, key: str, columns: Mapping[str, Column], *, empty: str
) -> None:
    """Print a list that the API answered with: as JSON, or its rows under ``key`` as a table.

    ``columns`` are by their headings. ``empty`` is printed if there are no rows.
    """
    if output is Format.JSON:
        print_json(answer)
        return
    rows = [[_value(row, column) for column in columns.values()] for row in answer[key]]
    table([*columns], rows, empty=empty, total=answer.get("total", 0))


def _value(row: Mapping[str, Any], column: Column) -> object:
    if callable(column):
        return column(row)
    value = row.get(column)
    return moment(value) if column.endswith("_at") else value


def cell(value: object) -> Text:
    """Format a value for a table: states in their colour, times to the second, nothing for None."""
    from rich.text import Text

    from rollwave.client.view import STATE_STYLES, STATUS_STYLES

    text = "" if value is None else visible(str(value))
    style = next((style for word, style in (*STATE_STYLES.items(), *STATUS_STYLES.items()) if word == text), "")
    return Text(text, style)


def moment(value: Any) -> str:
    """Format an RFC 3339 time of the API as local time, to the second."""
    return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else ""
