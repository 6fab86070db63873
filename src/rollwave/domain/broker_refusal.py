"""Why the broker does not take one device's command, while it takes others."""

from __future__ import annotations

from enum import StrEnum

LONGEST_REFUSAL_SECONDS = 600.0
"""Seconds that a device which the broker refuses waits before its command is tried again, at most."""


class Refusal(StrEnum):
    """What is stored of a device that waits for it (``refused_for``), until a command of its own is taken."""

    REJECTED = "rejected"
    """The broker answers that it does not take the command: an ACL, or a quota."""
    CONNECTION_ENDED = "connection_ended"
    """The broker ends the connection over it, and over no other topic."""
    TOO_LARGE = "too_large"
    """The command with this device's topic is over the broker's packet limit."""


TEXT = {
    Refusal.REJECTED: "the broker refuses its command",
    Refusal.CONNECTION_ENDED: "the broker ends the connection over it",
    Refusal.TOO_LARGE: "its command is larger than the broker takes",
}
"""What each says to an operator."""
