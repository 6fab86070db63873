"""One publishing session, opened when first needed and again when lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from rollwave.breaker import Breaker, Problems, Told
from rollwave.engine.precedence import Precedence
from rollwave.engine.telling import tell
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session

_log = get_logger("publisher")

PUBLISHER = "publisher"


class Publisher:
    """``async with`` is its lifetime. Listening has a session of its own, so that neither holds up the other."""

    def __init__(self, broker: Broker, problems: Problems | None = None, precedence: Precedence | None = None) -> None:
        """``problems``: of the process. A listener that has logged why the broker is away has given the hint."""
        self._broker = broker
        self._problems = problems or Problems()
        self._session: Session | None = None
        self._closing = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._breaker = Breaker()
        self.precedence = precedence or Precedence()
        self.told = Told()
        """Of which campaigns it has been said that their commands are not taken."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session, if one is open."""
        self._session = None
        await self._closing.aclose()

    async def session(self) -> Session:
        """A session that stands, as far as this side knows.

        Raises:
            BrokerUnavailable: none can be had now. Logged once until the broker is back.
        """
        async with self._opening:
            if self._session is not None and self._session.connected:
                return self._session
            await self._closing.aclose()
            self._session = None
            self._session = await self._open(self._closing)
            return self._session

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Session]:
        """A session beside the shared one, for what may cost it the connection. Closed with the block.

        Raises:
            BrokerUnavailable: as :meth:`session`.
        """
        async with AsyncExitStack() as closing:
            yield await self._open(closing)

    async def _open(self, closing: AsyncExitStack) -> Session:
        if not self._breaker.admits():
            raise BrokerUnavailable(f"no MQTT session with {self._broker.address}; trying again shortly")
        try:
            session = await closing.enter_async_context(Session.connect(self._broker))
        except BrokerUnavailable as error:
            # Not every campaign of every tick may knock again.
            if self._breaker.failed():
                tell(self._problems, PUBLISHER, "ota_mqtt_publish_failed", error, broker=self._broker.address)
            raise
        self._problems.over(PUBLISHER)
        away_for = self._breaker.worked()
        if away_for is not None:
            _log.info("ota_mqtt_publisher_connected", broker=self._broker.address, away_for=round(away_for, 1))
        return session

    @property
    def away_for(self) -> float | None:
        """Seconds for which no session could be had; None: one can, as far as is known."""
        return self._breaker.away_for

    async def drop(self, session: Session) -> None:
        """Close a session that did not answer in time, so that nothing still queued in it goes out late."""
        session.abort()
        async with self._opening:
            if self._session is session:
                self._session = None
                await self._closing.aclose()
