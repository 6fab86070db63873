"""Reads a list of devices from CSV as spreadsheets write it, and finds the mistakes in it. Pure."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rollwave.domain.ids import ID_RULE, is_valid_id

ID = "device_id"
TYPE = "device_type"

DELIMITERS = ",;\t"
"""Separators of values. The first that gives a column device_id in the header is used. A line `sep=` names another."""

_sep = re.compile(r"sep=([^\"\r\n])(?:\r\n|\r|\n|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Device:
    """One row. All columns except the id and the type are attributes."""

    device_id: str
    device_type: str | None
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake on ``line``. The first line has number 1."""

    line: int
    what: str


def read_devices(content: bytes) -> tuple[list[Device], list[Mistake]]:
    """The devices, and the mistakes in the file. Use the devices only if there are no mistakes."""
    try:
        text = _decoded(content)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [], [Mistake(line, "is not UTF-8: save the file as CSV UTF-8")]
    named = _sep.match(text)
    delimiter = named[1] if named else next((each for each in DELIMITERS if ID in _header(text, each)), ",")
    first = 2 if named else 1
    rows = _Rows(text[named.end() :] if named else text, delimiter, first)
    devices: list[Device] = []
    mistakes: list[Mistake] = []
    seen: dict[str, int] = {}
    try:
        line, header = next(rows, (first, []))
        header = _names(header)
        mistakes += [Mistake(line, what) for what in _header_mistakes(header)]
        if mistakes:
            return [], mistakes
        for line, row in rows:
            values = dict(zip(header, row, strict=False))
            found = list(_row_mistakes(header, row, values, seen))
            mistakes += [Mistake(line, what) for what in found]
            if not found:
                seen[values[ID]] = line
                devices.append(_device(values))
    except csv.Error as error:
        mistakes.append(Mistake(rows.line, f"is not CSV: {error}"))
    if not devices and not mistakes:
        mistakes.append(Mistake(1, "the file contains no device"))
    return devices, mistakes


def _decoded(content: bytes) -> str:
    """Text of a file in UTF-8, or in UTF-16 with a byte order mark, as Excel's "Unicode text" has."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


class _Rows:
    """The rows that are not empty, each with its first line: a quoted value may span several lines."""

    def __init__(self, text: str, delimiter: str, first: int) -> None:
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        self._before = first - 1

    @property
    def line(self) -> int:
        """The line that was read last."""
        return self._before + self._reader.line_num

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        while True:
            begins = self.line + 1
            row = [value.strip() for value in next(self._reader)]
            if any(row):
                return begins, row


def _header(text: str, delimiter: str) -> list[str]:
    try:
        return _names(next(_Rows(text, delimiter, 1), (1, []))[1])
    except csv.Error:
        return []


def _names(header: list[str]) -> list[str]:
    """The names of the columns. Letter case does not matter for ours; empty columns at the end have none."""
    names = [name.lower() if name.lower() in {ID, TYPE} else name for name in header]
    while names and not names[-1]:
        names.pop()
    return names


def _header_mistakes(header: list[str]) -> Iterator[str]:
    if ID not in header:
        yield f"the header has no column {ID}"
    if "" in header:
        yield "a column has no name"
    if len(set(header)) != len(header):
        yield "two columns have the same name"


def _row_mistakes(header: list[str], row: list[str], values: dict[str, str], seen: dict[str, int]) -> Iterator[str]:
    if len(row) < len(header) or any(row[len(header) :]):
        yield f"has {len(row)} values for {len(header)} columns"
        return
    device_id = values[ID]
    if not is_valid_id(device_id):
        yield f"device id {device_id!r} is not {ID_RULE}"
    elif device_id in seen:
        yield f"device id {device_id} is a duplicate of line {seen[device_id]}"
    if any("\x00" in value for value in row):
        yield "contains a NUL character"


def _device(values: dict[str, str]) -> Device:
    attributes = {name: value for name, value in values.items() if name not in (ID, TYPE) and value}
    return Device(values[ID], values.get(TYPE) or None, attributes)
