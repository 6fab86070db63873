"""Delays between retries."""

from __future__ import annotations

import secrets
from collections.abc import Iterator


def delays(first: float = 0.5, most: float = 30.0) -> Iterator[float]:
    """Delays in seconds that double from ``first`` up to ``most``, each with a random reduction of up to a half.

    The randomness keeps a fleet that lost its broker from reconnecting all at once.
    """
    ceiling = first
    while True:
        yield ceiling * (0.5 + secrets.randbelow(1000) / 2000)
        ceiling = min(most, ceiling * 2)
