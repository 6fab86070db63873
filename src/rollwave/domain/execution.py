"""One device in one campaign: its states and what may move it between them.

An execution only moves forward while an attempt lasts. Sending again opens a new attempt,
which starts at ``DOWNLOADING``; nothing ever leaves a terminal state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ExecutionStatus(StrEnum):
    """The words of ``ota_device_status.status``."""

    PENDING = "PENDING"
    """Not sent to yet, or a worker is sending right now."""
    DOWNLOADING = "DOWNLOADING"
    """The broker has acknowledged the command, or the device reports fetching the artifact."""
    INSTALLING = "INSTALLING"
    """The device reports that it has the artifact and is applying it."""
    SUCCESS = "SUCCESS"
    """The device reports that it runs the firmware. Counted once in ``succeeded``."""
    FAILED = "FAILED"
    """The device reported a failure, or never answered. Counted once in ``failed``."""
    SKIPPED = "SKIPPED"
    """Never sent to: the campaign stopped first, or the device cannot be addressed. Not counted."""


class Cause(StrEnum):
    """What can move an execution."""

    ACKNOWLEDGED = "broker acknowledged the command"
    REPORTED = "device reported"
    RETRIED = "device failed, the policy tries again"
    SILENT = "device silent, attempts left"
    EXHAUSTED = "device silent, no attempt left"
    STOPPED = "campaign aborted"
    UNSENDABLE = "device cannot be addressed"


_S, _C = ExecutionStatus, Cause

TRANSITIONS: Mapping[tuple[ExecutionStatus, Cause], frozenset[ExecutionStatus]] = MappingProxyType(
    {
        (_S.PENDING, _C.ACKNOWLEDGED): frozenset({_S.DOWNLOADING}),
        # A claimed row takes a report that overtakes the acknowledgement.
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
        (_S.INSTALLING, _C.SILENT): frozenset({_S.DOWNLOADING}),
        (_S.INSTALLING, _C.EXHAUSTED): frozenset({_S.FAILED}),
    }
)

TERMINAL = frozenset({_S.SUCCESS, _S.FAILED, _S.SKIPPED})
IN_PROGRESS = frozenset({_S.DOWNLOADING, _S.INSTALLING})
REPORTABLE = frozenset({_S.DOWNLOADING, _S.INSTALLING, _S.SUCCESS, _S.FAILED})
"""What a device may say of itself."""

RANK: Mapping[ExecutionStatus, int] = MappingProxyType(
    {_S.PENDING: 0, _S.DOWNLOADING: 1, _S.INSTALLING: 2, _S.SUCCESS: 3, _S.FAILED: 3, _S.SKIPPED: 3}
)
"""How far along a state is; the SQL function ``ota_status_rank`` is this table."""

LEEWAY = 0.1
"""Share of the progress timeout. ``apply_reports`` extends the deadline by the timeout and this share of it, so that
repetitions may be dropped for as long after a stored report, and no deadline comes too early."""
