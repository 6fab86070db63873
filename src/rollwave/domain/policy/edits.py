"""Which edits of a policy document a campaign accepts."""

from __future__ import annotations

from rollwave.domain.policy.document.model import PaceRule, PolicyDocument
from rollwave.domain.policy.placing import EVERYTHING
from rollwave.errors import Conflict


def check_edit(old: PolicyDocument, new: PolicyDocument, *, current_wave: int | None, command_is_frozen: bool) -> None:
    """Check that ``new`` may replace ``old``.

    Args:
        current_wave: number (from 0) of the wave that is sent to now; None: no device was sent to yet, so every wave
            may change.
        command_is_frozen: the campaign's command is stored, and with it the start jitter.

    Raises:
        Conflict: a wave that has passed, or the current one, would be gone or in another place; or the start jitter
            would change.
    """
    if current_wave is not None:
        _require_same_beginning(_names(old)[: current_wave + 1], _names(new))
    if command_is_frozen and _jitter(old) != _jitter(new):
        raise Conflict(
            "pace.start_jitter is part of the command, which this campaign has sent already",
            hint="Leave start_jitter as it is, or create a new campaign.",
        )


def _require_same_beginning(kept: list[str], names: list[str]) -> None:
    if names[: len(kept)] != kept:
        raise Conflict(
            f"the waves must begin with {', '.join(kept)}: they have passed, or are sent to now",
            hint="Waves are matched by name. Keep these in their order; change those that follow.",
        )


def _names(document: PolicyDocument) -> list[str]:
    return [wave.name for wave in document.waves] or [EVERYTHING.name]


def _jitter(document: PolicyDocument) -> float:
    return (document.pace or PaceRule()).start_jitter or 0.0
