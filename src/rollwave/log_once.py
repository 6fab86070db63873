"""Problems of settings, schema, pool and broker: each is logged once in a process, with its hint."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from rollwave.errors import RollwaveError
from rollwave.log import get_logger, report

_log = get_logger("engine")


class LogOnce:
    """Remembers what was logged about each of the last thousand subjects, so that a problem is logged once."""

    def __init__(self, room: int = 1000) -> None:
        self._said: dict[Hashable, str] = {}
        self._room = room

    def is_new(self, whom: Hashable, what: str) -> bool:
        """Whether this must be logged. From now on it counts as logged."""
        if self._said.get(whom) == what:
            return False
        self._said.pop(whom, None)
        while len(self._said) >= self._room:
            del self._said[next(iter(self._said))]
        self._said[whom] = what
        return True

    def clear(self, whom: Hashable) -> bool:
        """The problem is over: the next one is logged again. Returns whether one had been logged."""
        return self._said.pop(whom, None) is not None


class Problems:
    """Problems that several parts of a process may share, such as a missing schema: the first part logs it."""

    def __init__(self) -> None:
        self._met: dict[str, str] = {}

    def met(self, part: str, what: str) -> bool:
        """Note that ``part`` has this problem. Returns whether to log it: no other part has it now."""
        is_new = what not in self._met.values()
        self._met[part] = what
        return is_new

    def over(self, part: str) -> bool:
        """``part`` has no problem any more: its next one is logged again. Returns whether it had one."""
        return self._met.pop(part, None) is not None


def tell(problems: Problems, part: str, event: str, error: RollwaveError, **fields: Any) -> None:
    """Log ``event``: as an error with its hint, or as a warning without hint if another part has given it already.

    Call this when ``part`` meets the problem for the first time, and ``problems.over`` when the problem is over.
    """
    if problems.met(part, what(error)):
        report(_log, event, error, **fields)
    else:
        _log.warning(event, error=str(error), **fields)


def what(error: RollwaveError) -> str:
    """The key of a problem. Two errors with the same hint are the same problem."""
    return f"{type(error).__name__}: {error.hint or error}"
