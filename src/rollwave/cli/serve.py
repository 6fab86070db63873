"""`rollwave serve` and `rollwave worker`: the engine, with and without the API."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.extras import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from rollwave.engine.worker.worker import Worker
    from rollwave.settings import Settings
    from rollwave.store.database import Pool

    MakeApp = Callable[[Pool, Settings, Worker], FastAPI]

COLLECT_AFTER = 5_000, 20, 20
"""Garbage collector thresholds. The default of 700 costs 6 % of dispatch throughput; with 50,000, uncollected garbage
takes some megabytes."""

Host = Annotated[str, typer.Option(help="Address to listen on.")]


def serve(
    host: Host = "127.0.0.1", port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080
) -> None:
    """Run the API, the console and a worker in one process.

    The console is at /console: log in with an API key.

    Needs DATABASE_URL (see `rollwave migrate`) and MQTT_BROKER_URL. On SIGTERM
    it finishes the work in progress and exits within 30 seconds.
    """
    require("server", "`rollwave serve`")
    from rollwave.api.app import create_app
    from rollwave.console.app import install

    def api_and_console(pool: Pool, settings: Settings, worker: Worker) -> FastAPI:
        app = create_app(pool, settings, readiness=worker.readiness)
        install(app, pool, settings)
        return app

    asyncio.run(_run(api_and_console, host, port))


def worker(
    host: Host = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port for /livez, /readyz and /metrics. Default: none.")
    ] = None,
) -> None:
    """Run a worker: it sends commands and receives reports. HTTP only for health and metrics.

    Needs DATABASE_URL and MQTT_BROKER_URL. Any number of workers can run; they
    share the work. On SIGTERM it finishes the work in progress and exits within
    30 seconds.
    """
    require("server", "`rollwave worker`")
    from rollwave.api.ops import create_ops_app
    from rollwave.engine.worker.readiness import database

    def ops(pool: Pool, _settings: Settings, worker: Worker) -> FastAPI:
        async def checks() -> dict[str, str]:
            return await database(pool) | await worker.readiness()

        return create_ops_app(checks)

    asyncio.run(_run(ops, host, port))


async def _run(make_app: MakeApp, host: str, port: int | None) -> None:
    from rollwave import log
    from rollwave.api import server
    from rollwave.engine.worker.supervisor import Supervisor
    from rollwave.engine.worker.worker import Worker
    from rollwave.settings import ENGINE, Settings
    from rollwave.store.connecting import unavailable
    from rollwave.store.database import create_pool
    from rollwave.store.guarded_pool import guarded
    from rollwave.store.migrate import require_current_schema
    from rollwave.store.outage import CONNECTION_TROUBLE

    settings = Settings.load(ENGINE)
    log.configure(settings)
    _warn_of_url(settings)
    _warn_of_broker(settings)
    # The lock of a listener slot needs a connection of its own, and so does LISTEN.
    size = settings.database_pool_size + settings.listener_slots + 1
    async with create_pool(settings.require_database_url(), size=size, pooled=settings.pooled) as bare:
        pool = guarded(bare)
        try:
            await require_current_schema(pool)
            await _warn_of_superuser(pool)
        except CONNECTION_TROUBLE as error:
            raise unavailable(error) from error
        supervisor = Supervisor()
        worker = Worker(pool, settings)
        worker.join(supervisor)
        if port is not None:
            app = make_app(pool, settings, worker)
            listen_on = port
            supervisor.add("http", lambda stop: server.serve_until(stop, app, host, listen_on))
        # Objects made so far stay for the life of the process, and most later ones are freed without the collector. So
        # a collection reads many objects and finds little garbage.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        await supervisor.run()


def _warn_of_url(settings: Settings) -> None:
    from rollwave.log import get_logger
    from rollwave.store.url import remarks

    for remark in remarks(settings.require_database_url(), settings.require_direct_url()):
        get_logger("serve").warning("ota_database_url", remark=remark.text, hint=remark.hint)


def _warn_of_broker(settings: Settings) -> None:
    from rollwave import log
    from rollwave.mqtt.broker import Broker

    warning = Broker.from_settings(settings).warning
    if warning is not None:
        log.report(log.get_logger("settings"), "ota_setting_ignored", warning, level=logging.WARNING)


async def _warn_of_superuser(pool: Pool) -> None:
    from rollwave.log import get_logger
    from rollwave.store import health

    login = await health.login(pool)
    if login.unconfined:
        get_logger("serve").warning(
            "ota_superuser_login",
            login=login.name,
            hint="Row-level security does not apply to this login outside the engine's transactions: "
            "give the engine one of its own, with `rollwave migrate --grant-to`.",
        )
