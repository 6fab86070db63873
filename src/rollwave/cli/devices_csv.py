"""Reading a list of devices from CSV. Pure: every mistake is found before anything is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from rollwave.domain.ids import is_valid_id

ID = "device_id"
TYPE = "device_type"


@dataclass(frozen=True, slots=True)
class Device:
    """One row. Columns other than the id and the type are its attributes."""

    device_id: str
    device_type: str | None
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong on ``line`` (the first line is 1)."""

    line: int
    what: str


def read_devices(content: bytes) -> tuple[list[Device], list[Mistake]]:
    """The devices, and what is wrong with the file: use the devices only when nothing is."""
    try:
        text = content.decode("utf-8-sig")  # spreadsheets like to begin with a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [], [Mistake(line, "is not UTF-8: save the file as CSV UTF-8")]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    devices: list[Device] = []
    mistakes: list[Mistake] = []
    seen: dict[str, int] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        mistakes += [Mistake(1, what) for what in _header_mistakes(header)]
        if mistakes:
            return [], mistakes
        for line, row in _rows(reader):
            values = dict(zip(header, (value.strip() for value in row), strict=False))
            found = list(_row_mistakes(header, row, values, seen))
            mistakes += [Mistake(line, what) for what in found]
            if not found:
                seen[values[ID]] = line
                devices.append(_device(values))
    except csv.Error as error:
        mistakes.append(Mistake(reader.line_num, f"is not CSV: {error}"))
    if not devices and not mistakes:
        mistakes.append(Mistake(1, "the file names no device"))
    return devices, mistakes


def _header_mistakes(header: list[str]) -> Iterator[str]:
    if ID not in header:
        yield f"the header names no column {ID}"
    if "" in header:
        yield "a column has no name"
    if len(set(header)) != len(header):
        yield "two columns have the same name"


def _rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line on which each begins: a quoted value may go over several."""
    line = 2
    for row in reader:
        if row:
            yield line, row
        line += 1 + sum(value.count("\n") for value in row)


def _row_mistakes(header: list[str], row: list[str], values: dict[str, str], seen: dict[str, int]) -> Iterator[str]:
    if len(row) != len(header):
        yield f"has {len(row)} values for {len(header)} columns"
        return
    device_id = values[ID]
    if not is_valid_id(device_id):
        yield f"device id {device_id!r} is not 1 to 128 of A-Z a-z 0-9 : . _ -"
    elif device_id in seen:
        yield f"device id {device_id} is on line {seen[device_id]} already"
    if any("\x00" in value for value in row):
        yield "holds a NUL character"


def _device(values: dict[str, str]) -> Device:
    attributes = {name: value for name, value in values.items() if name not in (ID, TYPE) and value}
    return Device(values[ID], values.get(TYPE) or None, attributes)
