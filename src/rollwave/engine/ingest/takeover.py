"""Detects that another client uses the listener's client id: logs it, and reconnects with growing pauses.

A broker gives a client id to the client that connected last. Two clients that reconnect immediately end each other's
session several times a second, and each receives a part of the reports.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.client import Session
from rollwave.store.listeners import Lock
from rollwave.store.outage import CONNECTION_TROUBLE
from rollwave.tasks import causes

STEADY_SECONDS = 10.0
"""Seconds after which a session counts as undisturbed."""

SUSPICIOUS_SESSIONS = 3
"""Number of shorter sessions in a row after which another client is suspected."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_NAMED_SECONDS, LONGEST_PAUSE_SUSPECTED_SECONDS = 1.0, 60.0, 5.0
"""Seconds until the next try: the first pause, and the longest if the broker reported a takeover, or if one is
suspected."""

FORGOTTEN_SECONDS = 600.0
"""Seconds without a takeover after which earlier ones no longer count."""

_LOOK_FOR = (
    "look for a second installation with the same ROLLWAVE_MQTT_CLIENT_ID, "
    "and for a copy of this database whose workers use the same broker"
)


class Takeovers:
    """How a listener's sessions ended, and when to open the next one."""

    def __init__(self) -> None:
        self._named = self._short = 0
        self._not_before = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next session may be opened."""
        return max(0.0, self._not_before - time.monotonic())

    @asynccontextmanager
    async def watch(self, session: Session, client_id: str, lock: Lock, stop: asyncio.Event) -> AsyncIterator[None]:
        """Determine how ``session`` ended when the block is left.

        Raises:
            BrokerUnavailable: another client took the session over, or is suspected of it. Any other error of the block
                is raised unchanged.
        """
        began = time.monotonic()
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if not all(isinstance(each, BrokerUnavailable) for each in causes(error)):
                raise
            failure = error
        # Without the lock, another worker of this installation has taken the slot, which is correct.
        if not (stop.is_set() or session.connected) and await _is_held(lock):
            words = self.lost(client_id, after=time.monotonic() - began, taken_over=session.taken_over)
            if words:
                raise BrokerUnavailable(words) from failure
        if failure:
            raise failure

    def lost(self, client_id: str, *, after: float, taken_over: bool) -> str:
        """Record that the broker ended a session ``after`` seconds. Returns a message to log; empty: nothing new."""
        if after > FORGOTTEN_SECONDS:
            self._named = 0
        self._named = self._named + 1 if taken_over else 0
        self._short = self._short + 1 if taken_over or after < STEADY_SECONDS else 0
        if taken_over:
            self._put_off(self._named, LONGEST_PAUSE_NAMED_SECONDS)
            return (
                f"another client uses the client id {client_id} on this broker and took over the session: {_LOOK_FOR}"
            )
        if self._short >= SUSPICIOUS_SESSIONS:
            self._put_off(self._short - SUSPICIOUS_SESSIONS + 1, LONGEST_PAUSE_SUSPECTED_SECONDS)
            return (
                f"session after session is lost within {STEADY_SECONDS:.0f} s, without a reason from the broker. "
                f"Another client may use the client id {client_id}: {_LOOK_FOR}"
            )
        return ""

    def _put_off(self, times: int, longest: float) -> None:
        pause = min(longest, FIRST_PAUSE_SECONDS * 2 ** min(times, 10))
        # Jitter, so that both clients do not reconnect at the same moment.
        self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it


async def _is_held(lock: Lock) -> bool:
    try:
        await lock.keep()
    except CONNECTION_TROUBLE:
        return False
    return True
