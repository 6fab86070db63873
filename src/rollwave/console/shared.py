"""What many pages ask for at the same time is read once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

_MAX_KEPT = 1000


@dataclass(slots=True)
class _Kept(Generic[T]):
    value: T | None = None
    read_at: float = 0.0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Shared(Generic[T]):
    """Keeps the last answers for ``seconds``. Of several callers at the same time one reads, and the others wait."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The answer of ``read``, or the same of a moment ago. ``key``: what is read, with its tenant."""
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        async with kept.reading:
            if kept.value is None or self._clock() - kept.read_at >= self._seconds:
                kept.value = await read()
                kept.read_at = self._clock()
            return kept.value
