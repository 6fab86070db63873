"""Which reports cannot be written now, and why. They are kept and tried again, whatever the error is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rollwave.log import get_logger
from rollwave.store.outage import is_away, is_outage

_log = get_logger("listener")


@dataclass(frozen=True, slots=True)
class _Delay:
    kind: str
    since: float
    is_fault: bool


class Delays:
    """Notes each failed try of a piece of work by its name, logs each kind of error once, and says what is wrong."""

    def __init__(self) -> None:
        self._delays: dict[str, _Delay] = {}

    @property
    def fault(self) -> str:
        """What is wrong and since when, for anybody to read. Empty: nothing, or an outage, which passes by itself."""
        faults = [each for each in self._delays.values() if each.is_fault]
        if not faults:
            return ""
        first = min(faults, key=lambda each: each.since)
        return f"cannot be written: {first.kind}, for {time.monotonic() - first.since:.0f} s; see the log"

    def failed(self, work: str, error: Exception, **fields: object) -> None:
        """Note that ``work`` has failed. An error that is no outage is logged with its traceback."""
        before = self._delays.get(work)
        kind = type(error).__name__
        fault = not is_outage(error)
        since = before.since if before is not None and before.is_fault else time.monotonic()
        self._delays[work] = _Delay(kind, since, fault)
        if is_away(error) or (before is not None and before.kind == kind):
            return  # that the database is away, the pool has said
        _log.error("ota_reports_delayed", error=f"{kind}: {error}", exc_info=error if fault else None, **fields)

    def forget(self) -> None:
        """What has failed was given up: somebody else does it."""
        self._delays.clear()

    def over(self, work: str) -> None:
        """``work`` has succeeded: the next failure is news."""
        self._delays.pop(work, None)
