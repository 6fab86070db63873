"""One device in one campaign: its states, and the causes that change them.

Within an attempt, an execution only moves forward. A new attempt starts at ``DOWNLOADING``. Terminal states are final,
unless an operator gives a failed device another attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class ExecutionStatus(StrEnum):
    """The values of ``ota_device_status.status``."""

    PENDING = "PENDING"
    """Not sent to yet, or a worker is sending to it now."""
    DOWNLOADING = "DOWNLOADING"
    """The broker has acknowledged the command, or the device reports fetching the artifact."""
    INSTALLING = "INSTALLING"
    """The device reports that it has the artifact and is applying it."""
    SUCCESS = "SUCCESS"
    """The device reports that it runs the firmware. Counted once in ``succeeded``."""
    FAILED = "FAILED"
    """The device reported a failure, or fell silent. Counted once in ``failed``."""
    SKIPPED = "SKIPPED"
    """Never sent to: the campaign stopped first, or the device cannot be addressed. Not counted."""


class Cause(StrEnum):
    """A cause that changes an execution's state."""

    ACKNOWLEDGED = "broker acknowledged the command"
    REPORTED = "device reported"
    RETRIED = "device failed, the policy tries again"
    RETRIED_BY_OPERATOR = "operator retries the device"
    SILENT = "device silent, attempts left"
    EXHAUSTED = "device silent, no attempt left"
    STOPPED = "campaign aborted"
    UNSENDABLE = "device cannot be addressed"


_S, _C = ExecutionStatus, Cause

TRANSITIONS: Mapping[tuple[ExecutionStatus, Cause], frozenset[ExecutionStatus]] = MappingProxyType(
    {
        (_S.PENDING, _C.ACKNOWLEDGED): frozenset({_S.DOWNLOADING}),
        # The report of a claimed device may arrive before the broker's acknowledgement.
        (_S.PENDING, _C.REPORTED): frozenset({_S.DOWNLOADING, _S.INSTALLING, _S.SUCCESS, _S.FAILED}),
        (_S.PENDING, _C.RETRIED): frozenset({_S.DOWNLOADING}),
        (_S.PENDING, _C.STOPPED): frozenset({_S.SKIPPED}),
        (_S.PENDING, _C.UNSENDABLE): frozenset({_S.SKIPPED}),
        (_S.DOWNLOADING, _C.REPORTED): frozenset({_S.INSTALLING, _S.SUCCESS, _S.FAILED}),
        (_S.DOWNLOADING, _C.RETRIED): frozenset({_S.DOWNLOADING}),
        (_S.DOWNLOADING, _C.SILENT): frozenset({_S.DOWNLOADING}),
        (_S.DOWNLOADING, _C.EXHAUSTED): frozenset({_S.FAILED}),
        (_S.INSTALLING, _C.REPORTED): frozenset({_S.SUCCESS, _S.FAILED}),
        (_S.INSTALLING, _C.RETRIED): frozenset({_S.DOWNLOADING}),
        (_S.FAILED, _C.RETRIED_BY_OPERATOR): frozenset({_S.DOWNLOADING}),
        (_S.INSTALLING, _C.SILENT): frozenset({_S.DOWNLOADING}),
        (_S.INSTALLING, _C.EXHAUSTED): frozenset({_S.FAILED}),
    }
)

TERMINAL = frozenset({_S.SUCCESS, _S.FAILED, _S.SKIPPED})
IN_PROGRESS = frozenset({_S.DOWNLOADING, _S.INSTALLING})
REPORTABLE = frozenset({_S.DOWNLOADING, _S.INSTALLING, _S.SUCCESS, _S.FAILED})
"""The states that a device may report."""

RANK: Mapping[ExecutionStatus, int] = MappingProxyType(
    {_S.PENDING: 0, _S.DOWNLOADING: 1, _S.INSTALLING: 2, _S.SUCCESS: 3, _S.FAILED: 3, _S.SKIPPED: 3}
)
"""The order of the states. The SQL function ``ota_status_rank`` has the same table."""

LEEWAY = 0.1
"""Share of the progress timeout. ``apply_reports`` extends the deadline by the timeout and this share of it. For this
spare time after a stored report, repetitions may be dropped, and no deadline comes too early."""


WAVE_BITS = 44
"""The bits of ``ota_device_status.position`` that order the devices of one wave. The wave's number is above them."""


class Cell(NamedTuple):
    """The devices of one ``wave`` (from 0) and one ``segment`` (from 1). Flat columns: wave -1 and segment 0."""

    wave: int
    segment: int


class Place(NamedTuple):
    """Where a device stands in a campaign under a policy document.

    ``segment``: from 1. ``wave``: from 0. ``dispatch_number``: of its first command among the campaign's, from 1;
    None: it was never sent to. ``budget_values``: its value for each budget of the document (None: it does not have
    the label).
    """

    segment: int
    wave: int
    dispatch_number: int | None
    budget_values: tuple[str | None, ...] = ()

    @classmethod
    def read(
        cls,
        segment: int | None,
        position: int | None,
        dispatch_number: int | None,
        budget_values: Sequence[str | None] | None = None,
    ) -> Place | None:
        """Read the columns of a row. None: its campaign has flat columns, or the device is not placed yet.

        The segment of a device that a budget holds is stored as a negative number.
        """
        if not segment or position is None:
            return None
        values = tuple(budget_values) if budget_values else ()
        return cls(abs(segment), (position >> WAVE_BITS) - 1, dispatch_number, values)
