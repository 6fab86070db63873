"""Keeps state for each pool of a host between two ticks.

A host calls a tick every few seconds. Some state must outlive a tick: the session with the broker, when to look at each
campaign next, and which problems were logged already. It is closed after a time without use, and when the event loop
ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import inf

from prometheus_client import CollectorRegistry

from rollwave import metrics
from rollwave.engine.backpressure import Backpressure
from rollwave.engine.causes import TopCauses
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.ingest.listener import Listener
from rollwave.engine.worker.tick import Ticker
from rollwave.errors import ConfigurationError, IdentityUndecided, RollwaveError, SchemaMismatch
from rollwave.log import get_logger, report
from rollwave.log_once import LogOnce, Problems, what
from rollwave.mqtt.broker import Broker
from rollwave.settings import ENGINE, Settings
from rollwave.store.database import Pool
from rollwave.store.guarded_pool import belongs_to, guarded
from rollwave.store.migrate import require_current_schema
from rollwave.store.outage import is_away, is_outage
from rollwave.store.schema import explained
from rollwave.tasks import end, start

_log = get_logger("host")

IDLE_SECONDS, IDLE_TICKS = 60.0, 3
"""Seconds, or number of tick intervals if that is longer, for which the session is kept after the last tick."""

CHECK_EVERY_SECONDS = 1.0
"""Seconds between two checks whether the state is still used."""

CLOSING_SECONDS = 15.0
"""Maximum number of seconds to close the session."""

SPARE_CONNECTIONS = 3
"""Number of connections that a pool should have beside those of the listener. With only one it works slowly."""


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of a host. ``settings`` None: the environment; ``registry`` None: the default one."""

    settings: Settings | None = None
    registry: CollectorRegistry | None = None


@dataclass(frozen=True, slots=True)
class Dispatching:
    """The objects that ticks with the same settings share."""

    settings: Settings
    command_session: CommandSession
    ticker: Ticker


class HostPool:
    """The state that is kept for one pool."""

    def __init__(
        self, pool: Pool, *, idle_seconds: float = IDLE_SECONDS, check_every_seconds: float = CHECK_EVERY_SECONDS
    ) -> None:
        self._idle_seconds, self._check_every_seconds = idle_seconds, check_every_seconds
        self.pool = guarded(pool)
        self._unguarded = pool
        self.loop = asyncio.get_running_loop()
        self.problems = Problems()
        self.listeners: dict[int, Listener] = {}
        """The listeners by the slot that they hold or stand by for."""
        self.backpressure = Backpressure()
        self.top_causes = TopCauses()
        self._log_once = LogOnce()
        self._dispatching: Dispatching | None = None
        self._broker: tuple[Settings, Broker] | None = None
        """The broker of the settings that were checked last."""
        self._schema_is_current = False
        self._users = 0
        self._used_at = -inf
        # Its log lines belong to no tick: it starts with no context variable set.
        self._closing = contextvars.Context().run(start, self._close_when_idle())

    async def require_ready(self, given: Given) -> Settings:
        """Check settings, pool and schema. Returns the settings.

        Raises:
            RollwaveError: a setting, the schema or a right is missing or wrong.
        """
        self._join_registry(given.registry)
        settings = self.read_settings(given)
        if not belongs_to(self._unguarded, self.loop):
            raise ConfigurationError(
                "the pool belongs to another event loop",
                hint="Make the pool in the event loop in which it is used, and a new one for each asyncio.run().",
            )
        if not self._schema_is_current:
            await require_current_schema(self.pool)
            self._schema_is_current = True
        return settings

    def read_settings(self, given: Given) -> Settings:
        """Read and check the settings.

        Raises:
            ConfigurationError: the argument is no settings object, or a setting or a file that it names cannot be used.
        """
        settings: object = Settings.load() if given.settings is None else given.settings
        if not isinstance(settings, Settings):
            raise ConfigurationError(
                f"settings= takes rollwave.Settings, and this is {type(settings).__name__}",
                hint="Hand over settings=Settings(...), or leave it out to have the environment read.",
            )
        settings.require(ENGINE)
        self._broker_of(settings)
        return settings

    def require_spare_connections(self, settings: Settings) -> None:
        """Check that listeners leave at least one connection of the pool to all other users, such as the host.

        Raises:
            ConfigurationError: listeners would use every connection of the pool.
        """
        size = getattr(self._unguarded, "get_max_size", lambda: inf)()
        slots = settings.listener_slots
        if settings.database_direct_url is None and size <= slots:
            raise ConfigurationError(
                f"the pool has {size} connections at most, and {slots} of them would be the listener's for good",
                hint=f"Make the pool with max_size={slots + SPARE_CONNECTIONS} or more, "
                "or set ROLLWAVE_DATABASE_DIRECT_URL.",
            )

    async def dispatching(self, settings: Settings) -> Dispatching:
        """The objects for a tick with these settings. They are replaced when the settings change."""
        if self._dispatching is None or settings != self._dispatching.settings:
            await self._close()
            session = CommandSession(self._broker_of(settings), self.problems, self.backpressure)
            ticker = Ticker(self.pool, session, settings, log_once=self._log_once)
            self._dispatching = Dispatching(settings, session, ticker)
        return self._dispatching

    @property
    def last_settings(self) -> Settings | None:
        """The settings of the last tick; None: there was none."""
        return self._dispatching.settings if self._dispatching else None

    def log_problem(self, part: str, error: Exception) -> None:
        """Log a problem of ``part`` unless it is logged already. Only a programming error has a traceback."""
        found = explained(error)
        if isinstance(found, SchemaMismatch):
            self._schema_is_current = False
        if isinstance(found, RollwaveError):
            # The identity check has already logged an undecided identity.
            if not isinstance(found, IdentityUndecided) and self.problems.met(part, what(found)):
                report(_log, "ota_not_ready", found, part=part)
        elif not is_away(error) and self.problems.met(part, type(error).__name__):
            if is_outage(error):
                _log.error("ota_tick_failed", error=f"{type(error).__name__}: {error}", part=part)
            else:
                report(_log, "ota_tick_failed", error, part=part)

    def log_recovery(self, part: str) -> None:
        """Record that ``part`` works. If it did not before, log the recovery."""
        if self.problems.over(part):
            _log.info("ota_ready", part=part)

    def note_use(self) -> None:
        """Record that the state is used now."""
        self._used_at = time.monotonic()

    @contextmanager
    def used_by_a_tick(self, *, again: bool) -> Iterator[None]:
        """Keep the state during the block, and for a while after it if the tick may be called ``again``."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if again:
                self.note_use()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Keep the state during the block. The last user closes it, unless other ticks are called."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._seconds_left <= 0:
                await end(self._closing, within=CLOSING_SECONDS, cancel_again=CLOSING_SECONDS)

    def _join_registry(self, registry: CollectorRegistry | None) -> None:
        try:
            metrics.join(registry)
        except ConfigurationError as error:  # nothing else depends on the metrics
            if self._log_once.is_new("registry", str(error)):
                report(_log, "ota_metrics_not_registered", error)

    def _broker_of(self, settings: Settings) -> Broker:
        if self._broker is None or self._broker[0] != settings:
            broker = Broker.from_settings(settings)
            if broker.warning and self._log_once.is_new("broker", str(broker.warning)):
                report(_log, "ota_setting_ignored", broker.warning, level=logging.WARNING)
            self._broker = settings, broker
        return self._broker[1]

    async def _close_when_idle(self) -> None:
        try:
            while self._users or self._seconds_left > 0:  # noqa: ASYNC110  no event says that a host has stopped ticking
                await asyncio.sleep(self._check_every_seconds)
        finally:
            if host_pools.get(id(self._unguarded)) is self:
                del host_pools[id(self._unguarded)]
            await self._close()

    @property
    def _seconds_left(self) -> float:
        """Seconds until the state is closed, unless it is used before."""
        interval = self._dispatching.settings.tick_interval if self._dispatching else 0.0
        return self._used_at + max(self._idle_seconds, IDLE_TICKS * interval) - time.monotonic()

    async def _close(self) -> None:
        dispatching, self._dispatching = self._dispatching, None
        if dispatching is not None:
            await dispatching.ticker.cancel()
            await dispatching.command_session.close()


host_pools: dict[int, HostPool] = {}
"""The states by the ``id()`` of their pools, since asyncpg's pools do not support weak references."""


def host_pool_of(pool: Pool) -> HostPool:
    """The state that is kept for ``pool`` in the running event loop.

    Raises:
        TypeError: ``pool`` is not a pool.
    """
    if not callable(getattr(pool, "acquire", None)):
        raise TypeError(f"an asyncpg.Pool is wanted, and this is {type(pool).__name__}")
    found = host_pools.get(id(pool))
    if found is None or found.loop is not asyncio.get_running_loop():
        found = host_pools[id(pool)] = HostPool(pool)
    return found
