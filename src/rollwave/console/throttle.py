"""Limits wrong keys from an address.

A right key is never refused: many people may share an address, behind a proxy or a gateway, and one of them may be
wrong often. A key cannot be guessed; this tells programs to slow down.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

ALLOWED = 10
"""Failed logins of one address within :data:`WINDOW`."""
WINDOW = 60.0
"""Seconds."""
_MAX_ADDRESSES = 10_000


class Throttle:
    """Counts the failed logins of each address in this process. ``clock``: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str) -> None:
        """Note a failed login."""
        self._failures.setdefault(address, deque(maxlen=ALLOWED)).append(self._clock())
        self._failures.move_to_end(address)
        while len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def wait(self, address: str) -> int:
        """Seconds until a wrong key from this address is answered as one, 0 if it is now."""
        times = self._failures.get(address)
        if times is None or len(times) < ALLOWED:
            return 0
        return max(0, math.ceil(times[0] + WINDOW - self._clock()))
