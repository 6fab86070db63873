"""Another client with the listener's client id ends its sessions: name that in the log, and reconnect ever later.

A broker gives a client id to the client that connects last. Two clients that both reconnect at once take the session
from each other several times a second, and each gets a part of the reports.
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
"""Seconds after which a session counts as a good one."""

SUSPICIOUS_SESSIONS = 3
"""Sessions in a row that were lost sooner than that, before another client is suspected."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_NAMED_SECONDS, LONGEST_PAUSE_SUSPECTED_SECONDS = 1.0, 60.0, 5.0
"""Seconds until the next attempt: at first; at most where the broker named the takeover; and where it is suspected."""

FORGOTTEN_SECONDS = 600.0
"""Seconds after which the takeovers before count no more."""

_LOOK_FOR = (
    "look for a second installation with the same ROLLWAVE_MQTT_CLIENT_ID, "
    "and for a copy of this database whose workers use the same broker"
)


class Takeovers:
    """What became of a listener's sessions, and when to open the next one."""

    def __init__(self) -> None:
        self._named = self._short = 0
        self._not_before = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next session may be opened."""
        return max(0.0, self._not_before - time.monotonic())

    @asynccontextmanager
    async def watch(self, session: Session, client_id: str, lock: Lock, stop: asyncio.Event) -> AsyncIterator[None]:
        """Judge how ``session`` ended, once the block is left.

        Raises:
            BrokerUnavailable: another client took it over, or is suspected to; else what the block raised.
        """
        began = time.monotonic()
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if not all(isinstance(each, BrokerUnavailable) for each in causes(error)):
                raise
            failure = error
        # Without the lock it is another worker of this installation that connected, and it may.
        if not (stop.is_set() or session.connected) and await _is_held(lock):
            words = self.lost(client_id, after=time.monotonic() - began, taken_over=session.taken_over)
            if words:
                raise BrokerUnavailable(words) from failure
        if failure:
            raise failure

    def lost(self, client_id: str, *, after: float, taken_over: bool) -> str:
        """Note that the broker ended a session ``after`` so many seconds. Returns what to log; empty: nothing new."""
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
        # Jitter, so that the two do not come back in step.
        self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it


async def _is_held(lock: Lock) -> bool:
    try:
        await lock.keep()
    except CONNECTION_TROUBLE:
        return False
    return True
