"""How long to wait before trying again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator


def delays(first: float = 0.5, most: float = 30.0) -> Iterator[float]:
    """Seconds to wait, doubling from ``first`` up to ``most``, each drawn from the upper half of its range.

    The draw keeps a fleet that lost its broker at one moment from coming back at one moment.
    """
    ceiling = first
    while True:
        yield ceiling * (0.5 + secrets.randbelow(1000) / 2000)
        ceiling = min(most, ceiling * 2)
