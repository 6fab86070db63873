"""How long a campaign is worked on at a time, and when it is looked at again."""

from __future__ import annotations

SOON_SECONDS = 1.0
"""Until a campaign is looked at again, where nothing tells when that is worth while."""

TURN_SECONDS = 2.0
"""For which one campaign is worked on, before others that wait get their turn."""
