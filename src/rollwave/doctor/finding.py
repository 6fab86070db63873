"""What a check found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import StrEnum

from rollwave.errors import RollwaveError

TIMEOUT_SECONDS = 30.0
"""Maximum time for one check, in seconds."""


class State(StrEnum):
    """How serious it is. With a problem, the engine does not work, or not safely."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. ``mend`` says how to fix it; empty if there is nothing to fix."""

    check: str
    state: State
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, State.OK, text)


def warning(check: str, text: str, mend: str) -> Finding:
    """It works, and somebody should look."""
    return Finding(check, State.WARNING, text, mend)


def problem(check: str, text: str, mend: str) -> Finding:
    """It does not work, or not safely."""
    return Finding(check, State.PROBLEM, text, mend)


async def attempt(check: str, work: Awaitable[Finding], mend: str = "") -> Finding:
    """What ``work`` finds; an error of ours, or silence, is a problem."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await work
    except TimeoutError:
        return problem(check, f"no answer within {TIMEOUT_SECONDS:.0f} s", mend)
    except RollwaveError as error:
        return problem(check, str(error), mend or error.hint)
