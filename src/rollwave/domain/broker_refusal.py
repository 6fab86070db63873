"""The reasons for which the broker refuses one device's command while it accepts others."""

from __future__ import annotations

from enum import StrEnum

LONGEST_REFUSAL_SECONDS = 600.0
"""Maximum delay before the next try for a device whose command the broker refuses."""


class Refusal(StrEnum):
    """The reason stored in ``refused_for`` until the broker accepts a command of the device."""

    REJECTED = "rejected"
    """The broker refuses the command with a reason code, because of an ACL or a quota."""
    CONNECTION_ENDED = "connection_ended"
    """The broker ends the connection at this device's command, and at no other topic."""
    TOO_LARGE = "too_large"
    """The command with this device's topic is larger than the broker's packet limit."""


TEXT = {
    Refusal.REJECTED: "the broker refuses its command",
    Refusal.CONNECTION_ENDED: "the broker ends the connection over it",
    Refusal.TOO_LARGE: "its command is larger than the broker takes",
}
"""Each reason as a text for operators."""
