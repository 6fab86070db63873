"""What the holder of an API key may do."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """From least to most: each may do all that the ones before it may."""

    VIEWER = "viewer"
    """Reads."""
    OPERATOR = "operator"
    """Registers firmware and devices; creates, starts, pauses and aborts campaigns."""
    APPROVER = "approver"
    """Approves what an operator prepared. Nothing needs approval yet, so this is an operator."""
    ADMIN = "admin"
    """All of the tenant."""

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what ``needed`` may."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER = tuple(Role)
