"""One publishing session, opened when first needed and again when lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.client import Broker, Session

_log = get_logger("publisher")


class Publisher:
    """``async with`` is its lifetime. Listening has a session of its own, so that neither holds up the other."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._session: Session | None = None
        self._closing = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._away = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    @property
    def connected(self) -> bool:
        """Whether a session stands right now."""
        return self._session is not None and self._session.connected

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
            try:
                self._session = await self._closing.enter_async_context(Session.connect(self._broker))
            except BrokerUnavailable as error:
                if not self._away:
                    _log.warning("ota_mqtt_publish_failed", error=str(error), broker=self._broker.address)
                self._away = True
                raise
            if self._away:
                _log.info("ota_mqtt_publisher_connected", broker=self._broker.address)
            self._away = False
            return self._session
