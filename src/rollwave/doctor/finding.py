"""The result of a check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum

from rollwave.errors import RollwaveError

TIMEOUT_SECONDS = 30.0
"""Maximum time for one check, in seconds."""


class State(StrEnum):
    """The severity of a finding. With a problem, the engine does not work, or is not safe."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. ``mend`` says how to fix it; empty if there is nothing to fix."""

    check: str
    state: State
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    """The check passed."""
    return Finding(check, State.OK, text)


def warning(check: str, text: str, mend: str) -> Finding:
    """The engine works, but something should be fixed."""
    return Finding(check, State.WARNING, text, mend)


def problem(check: str, text: str, mend: str) -> Finding:
    """The engine does not work, or is not safe."""
    return Finding(check, State.PROBLEM, text, mend)


async def attempt(check: str, work: Awaitable[Finding], mend: str = "") -> Finding:
    """The finding of ``work``. A Rollwave error or a timeout is a problem; ``mend``: how to fix it."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await work
    except TimeoutError:
        return problem(check, f"no answer within {TIMEOUT_SECONDS:.0f} s", mend)
    except RollwaveError as error:
        return problem(check, str(error), mend or error.hint)
