"""One publishing session, opened when first needed and again when lost."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.client import Broker, Session

_log = get_logger("publisher")

FIRST_PAUSE, MAX_PAUSE = 0.2, 5.0
"""Seconds between two tries to reach the broker, at first and at most."""


class Publisher:
    """``async with`` is its lifetime. Listening has a session of its own, so that neither holds up the other."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._session: Session | None = None
        self._closing = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._failures = 0
        self._retry_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def session(self) -> Session:
        """A session that stands, as far as this side knows.

        Raises:
            BrokerUnavailable: none can be had now. Logged once until the broker is back.
        """
        async with self._opening:
            if self._session is not None and self._session.connected:
                return self._session
            if time.monotonic() < self._retry_at:
                raise BrokerUnavailable(f"no MQTT session with {self._broker.address}; trying again shortly")
            await self._closing.aclose()
            self._session = None
            try:
                self._session = await self._closing.enter_async_context(Session.connect(self._broker))
            except BrokerUnavailable as error:
                self._back_off(error)
                raise
            if self._failures:
                _log.info("ota_mqtt_publisher_connected", broker=self._broker.address)
            self._failures = 0
            return self._session

    async def drop(self, session: Session) -> None:
        """Close a session that did not answer in time, so that nothing still queued in it goes out late."""
        async with self._opening:
            if self._session is session:
                self._session = None
                await self._closing.aclose()

    def _back_off(self, error: BrokerUnavailable) -> None:
        """Not every campaign of every tick may knock again, and workers should not knock in step."""
        if not self._failures:
            _log.warning("ota_mqtt_publish_failed", error=str(error), broker=self._broker.address)
        pause = min(MAX_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._retry_at = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it
