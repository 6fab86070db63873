"""The roles of API keys."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The roles in rising order: each includes the rights of the roles before it."""

    VIEWER = "viewer"
    """May read."""
    OPERATOR = "operator"
    """May register firmware and devices, and create, start, pause and abort campaigns."""
    APPROVER = "approver"
    """May approve what an operator prepared: open a gate that asks for an approval, and start a campaign that ignores
    freezes."""
    ADMIN = "admin"
    """May do everything in its tenant."""

    def covers(self, needed: Role) -> bool:
        """Whether this role includes the rights of ``needed``."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER = tuple(Role)
