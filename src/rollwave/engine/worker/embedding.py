"""The functions for a host: one tick, the listener, and a loop, over the host's own pool. They raise cancellation only.

A problem with settings, broker, schema or pool is logged once, with its hint, and the work is tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace

from prometheus_client import CollectorRegistry

from rollwave.engine.ingest import listener
from rollwave.engine.ingest.troubles import part_of
from rollwave.engine.watchdog import Life, keep_running
from rollwave.engine.worker.host_pool import Given, HostPool, host_pool_of
from rollwave.engine.worker.worker import make_listener
from rollwave.errors import ConfigurationError
from rollwave.log import TraceSource, traced_by
from rollwave.settings import Settings
from rollwave.store.database import Pool

TICK, LOOP = "tick", "loop"
"""The names of a process's parts, in log lines about their problems."""

WAITED_FOR_SHARE = 0.05
"""Share of a tick interval. A tick waits for campaigns that must be looked at within this time."""

RETRY_SECONDS = 2.0
"""Seconds before a listener that met a problem tries again."""

_given: ContextVar[Given | None] = ContextVar("rollwave_given", default=None)
"""The arguments of ``worker_loop``, for the ticks that it calls."""


async def run_ota_campaign_tick(
    pool: Pool,
    *,
    settings: Settings | None = None,
    registry: CollectorRegistry | None = None,
    trace_id: TraceSource | None = None,
) -> None:
    """Run one tick over all ``RUNNING`` campaigns. Problems are logged, never raised.

    Calling it more often than once per tick interval sends nothing extra, since the pace is kept in the database. If an
    interval ends within a twentieth of its length, the tick waits for that, so jitter of the caller loses no tick.

    Args:
        settings: used instead of the environment.
        registry: where the metrics are registered. Default: prometheus_client's own registry.
        trace_id: a context variable of the host, or a function, that returns the trace id for the tick's log lines.

    Raises:
        TypeError: ``pool`` is not a pool.
    """
    host = host_pool_of(pool)
    # ``worker_loop`` tells when it ends. A host's own loop does not.
    with traced_by(trace_id), host.used_by_a_tick(again=_given.get() is None):
        try:
            ready = await host.require_ready(_with(settings, registry))
            await _tick(host, ready)
        except Exception as error:  # noqa: BLE001  a host's gather would end all of its other work
            host.log_problem(TICK, error)
        else:
            host.log_recovery(TICK)


async def _tick(host: HostPool, settings: Settings) -> None:
    ticker = (await host.dispatching(settings)).ticker
    try:
        wait = await ticker.tick()
        if wait <= WAITED_FOR_SHARE * settings.tick_interval:
            await asyncio.sleep(wait)
            await ticker.tick(quietly=True)
    except BaseException:
        await ticker.cancel()
        raise


async def run_ota_status_listener(
    pool: Pool,
    *,
    settings: Settings | None = None,
    registry: CollectorRegistry | None = None,
    trace_id: TraceSource | None = None,
) -> None:
    """Receive devices' reports until cancelled. Reconnects by itself. When cancelled, finishes the batch in progress.

    Args:
        settings: used instead of the environment.
        registry: where the metrics are registered. Default: prometheus_client's own registry.
        trace_id: a context variable of the host, or a function, that returns the trace id for a batch's log lines.

    Raises:
        TypeError: ``pool`` is not a pool.
    """
    host = host_pool_of(pool)
    given = Given(settings, registry)
    with traced_by(trace_id):
        async with host.used():
            slots = (await _ready(host, part_of(0), given)).listener_slots
            # As in `rollwave worker`, each slot needs a listener. Otherwise nothing is sent.
            async with asyncio.TaskGroup() as listening:  # the block ends when each has finished its batch
                for slot in range(slots):
                    listening.create_task(_listen(host, slot, given))


async def _listen(host: HostPool, slot: int, given: Given) -> None:
    """Listen in one slot. After a problem, start another listener."""
    part = part_of(slot)

    async def listen(life: Life) -> None:
        while True:
            ready = await _ready(host, part, given, life)
            try:
                host.listeners[slot] = make_listener(
                    host.pool, ready, slot=slot, backpressure=host.backpressure, problems=host.problems
                )
                await host.listeners[slot].run(life=life)
            except Exception as error:  # noqa: BLE001  a host's gather would end all of its other work
                host.log_problem(part, error)
            life.sign()
            await asyncio.sleep(RETRY_SECONDS)

    try:
        await keep_running(part, listen, silence=listener.SILENCE_SECONDS, drain=listener.DRAIN_SECONDS)
    finally:
        host.listeners.pop(slot, None)


async def _ready(host: HostPool, part: str, given: Given, life: Life | None = None) -> Settings:
    """Wait until settings, pool and schema allow listening."""
    while True:
        try:
            ready = await host.require_ready(given)
            host.require_spare_connections(ready)
            return ready
        except Exception as error:  # noqa: BLE001  as above
            host.log_problem(part, error)
        if life is not None:
            life.sign()
        await asyncio.sleep(RETRY_SECONDS)


async def worker_loop(
    tick: Callable[[Pool], Awaitable[None]],
    pool: Pool,
    interval: float | None = None,
    *,
    settings: Settings | None = None,
    registry: CollectorRegistry | None = None,
    trace_id: TraceSource | None = None,
) -> None:
    """Call ``tick(pool)`` every ``interval`` seconds until cancelled. An error is logged, and the loop continues.

    Args:
        interval: seconds. Default: OTA_TICK_INTERVAL.
        settings: used instead of the environment, for the ticks of this loop.
        registry: where the metrics are registered. Default: prometheus_client's own registry.
        trace_id: a context variable of the host, or a function, that returns the trace id for a tick's log lines.

    Raises:
        TypeError: ``pool`` is not a pool.
    """
    host = host_pool_of(pool)
    token = _given.set(Given(settings, registry))
    try:
        with traced_by(trace_id):
            async with host.used():
                while True:
                    started = time.monotonic()
                    try:
                        await tick(pool)
                        host.log_recovery(LOOP)
                    except Exception as error:  # noqa: BLE001  a tick of the host's own may raise
                        host.log_problem(LOOP, error)
                    every = _interval(settings) if interval is None else interval
                    await asyncio.sleep(max(0.0, every - (time.monotonic() - started)))
    finally:
        _given.reset(token)


def _with(settings: Settings | None, registry: CollectorRegistry | None) -> Given:
    given = _given.get() or Given()
    return replace(
        given,
        settings=given.settings if settings is None else settings,
        registry=given.registry if registry is None else registry,
    )


def _interval(settings: Settings | None) -> float:
    try:
        return (Settings.load() if settings is None else settings).tick_interval
    except (ConfigurationError, AttributeError):  # the tick has logged it
        return Settings().tick_interval
