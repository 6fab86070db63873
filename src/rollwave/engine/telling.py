"""Problems of settings, schema, pool and broker: each is logged once in a process, with its hint."""

from __future__ import annotations

from typing import Any

from rollwave.breaker import Problems
from rollwave.errors import RollwaveError
from rollwave.log import get_logger, report

_log = get_logger("engine")


def tell(problems: Problems, part: str, event: str, error: RollwaveError, **fields: Any) -> None:
    """Log ``event``: as an error with its hint, or as a warning without where another part has given that hint already.

    To be called when ``part`` meets the problem for the first time; it says ``problems.over`` when it is over.
    """
    if problems.met(part, what(error)):
        report(_log, event, error, **fields)
    else:
        _log.warning(event, error=str(error), **fields)


def what(error: RollwaveError) -> str:
    """What tells one problem from another: what to do about it."""
    return f"{type(error).__name__}: {error.hint or error}"
