"""How states look on a terminal: a mark, a letter and one of the 16 colours each, as in the console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rich.text import Text

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus


@dataclass(frozen=True, slots=True)
class Mark:
    """``sign`` stands before the word; ``block`` fills a bar. Both have a form for encodings that have ASCII only."""

    sign: str
    ascii_sign: str
    style: str
    block: str = ""
    ascii_block: str = ""


STATES: Mapping[ExecutionStatus, Mark] = MappingProxyType(
    {
        ExecutionStatus.SUCCESS: Mark("✓", "+", "green", "█", "#"),
        ExecutionStatus.FAILED: Mark("F", "F", "red", "▓", "F"),
        ExecutionStatus.INSTALLING: Mark("I", "I", "blue", "▒", "I"),
        ExecutionStatus.DOWNLOADING: Mark("D", "D", "cyan", "░", "D"),
        ExecutionStatus.SKIPPED: Mark("–", "-", "dim", "╌", "-"),  # noqa: RUF001  an en dash
        ExecutionStatus.PENDING: Mark("P", "P", "bright_black", "─", "."),
    }
)
"""In the order in which a bar shows them: terminal states first."""

STATUSES: Mapping[CampaignStatus, Mark] = MappingProxyType(
    {
        CampaignStatus.CREATED: Mark("○", "o", "bright_black"),
        CampaignStatus.RUNNING: Mark("●", "*", "bold"),
        CampaignStatus.PAUSED: Mark("‖", "=", "yellow"),
        CampaignStatus.COMPLETED: Mark("✓", "+", "green"),
        CampaignStatus.ABORTED: Mark("■", "#", "red"),
    }
)

LEVELS: Mapping[str, Mark] = MappingProxyType(
    {"ok": Mark("✓", "+", "green"), "watch": Mark("▲", "!", "yellow"), "stop": Mark("■", "#", "bold red")}
)
"""The verdict's levels."""


def marked(word: str) -> Text:
    """The word with its mark before it, if it is a state of a device or of a campaign; else the word alone."""
    mark = next((mark for each, mark in (*STATES.items(), *STATUSES.items()) if each == word), None)
    return Text(word) if mark is None else Text.assemble((mark.sign, mark.style), f" {word}")
