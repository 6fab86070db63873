"""Records the problems of one listener: since when, how long to wait before the next try, and what was logged."""

from __future__ import annotations

import time
from math import inf

from rollwave.breaker import Breaker
from rollwave.errors import RollwaveError
from rollwave.log import get_logger
from rollwave.log_once import Problems, tell
from rollwave.store.outage import CONNECTION_TROUBLE, is_away
from rollwave.store.schema import explained
from rollwave.tasks import causes

_log = get_logger("listener")

DISCONNECTED = "ota_status_listener_disconnected"

FAULT_PAUSE_SECONDS, FAULT_SHOWN_SECONDS = 2.0, 30.0
"""Seconds before the next session after a programming error, and for which ``/readyz`` reports the error."""


def part_of(slot: int) -> str:
    """The name of a listener among the parts of a process."""
    return f"listener {slot}"


class Troubles:
    """The problems of one listener. Each is logged once, until the listener works again."""

    def __init__(self, slot: int, problems: Problems) -> None:
        """``problems``: shared by the process, since other parts meet the same problems."""
        self._slot = slot
        self._problems = problems
        self._breaker = Breaker()
        self._said: set[str] = set()
        self._was_subscribed = False
        self._failure, self._failed_at = "", -inf

    @property
    def pause(self) -> float:
        """Seconds until the next try."""
        return self._breaker.pause

    @property
    def away_for(self) -> float | None:
        """Seconds for which the listener could neither listen nor stand by; None: it can."""
        return self._breaker.away_for

    @property
    def fault(self) -> str:
        """The programming error that ended a session recently, without secrets. Empty: there is none."""
        return self._failure if time.monotonic() - self._failed_at < FAULT_SHOWN_SECONDS else ""

    def over(self, *, subscribed: bool = False) -> None:
        """Record that the listener stands by, or is ``subscribed``."""
        self._breaker.worked()
        self._problems.over(part_of(self._slot))
        self._said.clear()
        self._was_subscribed = self._was_subscribed or subscribed

    def failed(self) -> None:
        """Record that the listener could not listen, for a reason that is logged already."""
        self._breaker.failed()

    def met(self, error: Exception) -> None:
        """Record that the listener could not listen. An error that is not an outage is logged with its traceback."""
        self._breaker.failed()
        found = [explained(each) for each in causes(error)]
        faults = [each for each in found if not isinstance(each, (RollwaveError, *CONNECTION_TROUBLE))]
        cause = next(iter(faults), found[0])
        why = f"{type(cause).__name__}: {cause}" if faults else "database unavailable" if is_away(cause) else str(cause)
        if faults:
            self._failure, self._failed_at = f"failed: {type(cause).__name__}; see the log", time.monotonic()
        if why in self._said:
            return
        self._said.add(why)
        if faults:
            _log.error(DISCONNECTED, error=why, slot=self._slot, exc_info=error)
        elif isinstance(cause, RollwaveError) and cause.hint:
            tell(self._problems, part_of(self._slot), DISCONNECTED, cause, slot=self._slot)
        elif self._was_subscribed or not is_away(cause):  # otherwise the pool has logged the outage
            _log.warning(DISCONNECTED, error=why, slot=self._slot)
        self._was_subscribed = False
