"""A campaign's devices as one byte each, in dispatch order, and what changed between two such fields.

The console draws the field as a picture, so a campaign of a million devices is a million bytes, which compress well,
and a change is a run of bytes. The console draws by the same rules: ``tests/unit/field_vectors.json`` is for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus

CODES: Mapping[ExecutionStatus, int] = MappingProxyType({status: code for code, status in enumerate(ExecutionStatus)})
"""The byte of each state: PENDING 0, DOWNLOADING 1, INSTALLING 2, SUCCESS 3, FAILED 4, SKIPPED 5."""
STATES: Sequence[ExecutionStatus] = tuple(CODES)
"""The state of each byte."""

DRAWN: Sequence[int] = tuple(
    CODES[status]
    for status in (
        ExecutionStatus.SUCCESS,
        ExecutionStatus.FAILED,
        ExecutionStatus.INSTALLING,
        ExecutionStatus.DOWNLOADING,
        ExecutionStatus.SKIPPED,
        ExecutionStatus.PENDING,
    )
)
"""The order of the states in a row that stands for several devices, from the left."""

MAX_RUNS = 5000
"""Maximum number of runs that are sent as changes. With more, the whole field is smaller."""

_FAILED = CODES[ExecutionStatus.FAILED]
_BLOCK = 4096
_GAP = 64


@dataclass(frozen=True, slots=True)
class Field:
    """The states of all devices of a campaign at one moment.

    Attributes:
        generation: changes when the order or the membership of the devices changes; then indexes mean other devices.
        sequence: of the moment, in microseconds of the database's clock since 1970. A later field has a larger one.
        states: a byte of ``CODES`` for each device, in dispatch order.
    """

    generation: str
    sequence: int
    states: bytes


class Run(NamedTuple):
    """This many ``devices``, from the index ``first``, are in the state of the byte ``code`` now."""

    first: int
    devices: int
    code: int


class Changes(NamedTuple):
    """What differs between two fields of the same generation: apply it to a field with a sequence from ``since``."""

    generation: str
    since: int
    sequence: int
    runs: tuple[Run, ...]


def changes(before: Field, after: Field) -> Changes | None:
    """What changed. None: the generation changed, or more than ``MAX_RUNS`` runs did; then read the whole field."""
    if before.generation != after.generation or len(before.states) != len(after.states):
        return None
    found: list[Run] = []
    for run in runs(before.states, after.states):
        if len(found) == MAX_RUNS:
            return None
        found.append(run)
    return Changes(after.generation, before.sequence, after.sequence, tuple(found))


def runs(before: bytes, after: bytes) -> Iterator[Run]:
    """The devices that changed, as runs of one state, by index. Both texts have the same length.

    A run may include devices that were in this state before, if that saves another run.
    """
    first, end, code = 0, 0, -1
    for index in _changed(before, after):
        state = after[index]
        if state == code and index - end <= _GAP and after.count(state, end, index) == index - end:
            end = index + 1
            continue
        if code >= 0:
            yield Run(first, end - first, code)
        first, end, code = index, index + 1, state
    if code >= 0:
        yield Run(first, end - first, code)


def _changed(before: bytes, after: bytes) -> Iterator[int]:
    for start in range(0, len(after), _BLOCK):
        was, now = before[start : start + _BLOCK], after[start : start + _BLOCK]
        if was != now:  # most blocks are equal, and comparing two blocks is one call
            yield from (start + place for place, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1])


def apply(states: bytes, found: Sequence[Run]) -> bytes:
    """The states after these runs."""
    changed = bytearray(states)
    for first, devices, code in found:
        changed[first : first + devices] = bytes([code]) * devices
    return bytes(changed)


def counts(states: bytes) -> dict[ExecutionStatus, int]:
    """The number of devices in each state."""
    return {status: states.count(code) for status, code in CODES.items()}


def summary(states: bytes) -> str:
    """The field as a sentence, for those who do not see it."""
    parts = [f"{number:,} {status}" for status, number in counts(states).items() if number]
    devices = "1 device" if len(states) == 1 else f"{len(states):,} devices"
    return f"{devices} in dispatch order: {', '.join(parts)}." if parts else "No devices yet."


def rows(devices: int, number: int) -> list[tuple[int, int]]:
    """The devices that each of ``number`` rows stands for: from an index, to below an index."""
    return [(row * devices // number, (row + 1) * devices // number) for row in range(number)]


def fill(states: bytes, cells: int) -> bytes:
    """The states of the ``cells`` of a row that stands for these devices, in proportion, in the order ``DRAWN``.

    Each state has the whole part of its share; the cells left go to the largest remainders, the first in the order
    ``DRAWN`` if equal. If a device is FAILED, one cell is: it takes the cell of the state with the most cells.
    """
    if not states or cells < 1:
        return b""
    devices = {code: states.count(code) for code in DRAWN}
    given = {code: number * cells // len(states) for code, number in devices.items()}
    by_remainder = sorted(DRAWN, key=lambda code: -(devices[code] * cells % len(states)))
    for code in by_remainder[: cells - sum(given.values())]:
        given[code] += 1
    if devices[_FAILED] and not given[_FAILED]:
        given[max(DRAWN, key=lambda code: given[code])] -= 1
        given[_FAILED] = 1
    return b"".join(bytes([code]) * given[code] for code in DRAWN)
