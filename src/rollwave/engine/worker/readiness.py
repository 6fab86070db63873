"""The checks of `/readyz`, also for a host's own health endpoint: whether this process can do its work.

Each check is ``ok``, or a short description of the problem without secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from math import isfinite
from typing import TypedDict

from rollwave import metrics
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.ingest.listener import Listener
from rollwave.engine.worker.host_pool import Given, host_pool_of
from rollwave.errors import BrokerUnavailable, ConfigurationError, RollwaveError
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import identity, listeners
from rollwave.store.database import Pool
from rollwave.store.guarded_pool import trouble
from rollwave.store.migrate import require_current_schema
from rollwave.store.outage import CONNECTION_TROUBLE, in_words, is_away, is_outage

_log = get_logger("readiness")

OK = "ok"

CHECK_SECONDS = 9.0
"""Maximum time for all checks together."""

DATABASE_SECONDS, BROKER_SECONDS = 3.0, 3.0
"""Maximum time for the database to answer, and for the broker to accept the session."""


class Readiness(TypedDict):
    """``status`` is ``ok`` if every check is ``ok``, otherwise ``not ready``."""

    status: str
    checks: dict[str, str]


async def readiness(pool: Pool, *, settings: Settings | None = None) -> Readiness:
    """The result of `/readyz` of ``rollwave worker``, for a host. Raises no error.

    It may be called in the process that runs the two coroutines, and in any other: the database knows whether a
    listener is subscribed.

    Args:
        settings: used instead of the environment. The same as for the two coroutines.
    """
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return verdict(await _checks(pool, settings))
    except TimeoutError:
        return verdict(too_slow())
    except Exception as error:  # noqa: BLE001  the caller needs an answer
        _log.exception("ota_readiness_failed")
        return verdict({"checks": f"failed: {type(error).__name__}; see the log"})


async def _checks(pool: Pool, given: Settings | None) -> dict[str, str]:
    host = host_pool_of(pool)
    host.note_use()
    checks = await database(host.pool)
    try:
        settings = host.read_settings(Given(given or host.last_settings))
    except ConfigurationError as error:
        return checks | {"settings": str(error)}
    dispatching = await host.dispatching(settings)
    return checks | await engine(host.pool, settings, dispatching.command_session, host.listeners.values())


def verdict(checks: dict[str, str]) -> Readiness:
    """The result of these checks. Also sets the metric."""
    metrics.ready.clear()
    for name, answer in checks.items():
        metrics.ready.labels(name).set(answer == OK)
    return {"status": OK if all(each == OK for each in checks.values()) else "not ready", "checks": checks}


def too_slow() -> dict[str, str]:
    """The result for checks that did not end in time."""
    return {"checks": f"no answer within {CHECK_SECONDS:g} s"}


async def database(pool: Pool) -> dict[str, str]:
    """Whether the database answers, has the schema that this program expects, and is its installation's own."""
    if known := trouble(pool):
        return {"database": known}
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            await require_current_schema(pool)
            found = await identity.look(pool)
    except RollwaveError as error:
        return {"database": OK, "schema": str(error)}
    except Exception as error:
        if is_outage(error):
            return {"database": trouble(pool) or in_words(error)}
        raise
    return {"database": OK, "schema": OK, "identity": OK if found.standing.decided else found.in_short()}


async def engine(
    pool: Pool, settings: Settings, command_session: CommandSession, listeners: Collection[Listener]
) -> dict[str, str]:
    """Whether commands can be sent and reports received. Standing by for another worker's slot is ok."""
    return {"broker": await _broker(command_session), "reports": await _reports(pool, settings, listeners)}


async def _broker(command_session: CommandSession) -> str:
    try:
        async with asyncio.timeout(BROKER_SECONDS):
            await command_session.session()
    except (BrokerUnavailable, TimeoutError):
        return f"cannot be reached, for {command_session.away_for or BROKER_SECONDS:.0f} s"
    return OK


async def _reports(pool: Pool, settings: Settings, ours: Collection[Listener]) -> str:
    for each in ours:
        if each.fault:
            return each.fault
    try:
        unheard_for = await listeners.unheard_for(pool, settings.listener_slots)
    except CONNECTION_TROUBLE as error:
        if not is_away(error):
            return f"cannot be told: {type(error).__name__}"
        unheard_for = None  # the check of the database says this
    if unheard_for is not None:
        since = f"for {unheard_for:.0f} s" if isfinite(unheard_for) else "none ever was"
        return f"cannot be received: no listener is subscribed, {since}; nothing is sent"
    if not all(each.presence.subscribed or each.presence.standby for each in ours):
        away_for = max((each.away_for or 0.0 for each in ours), default=0.0)
        return f"cannot be received: not subscribed, for {away_for:.0f} s"
    return OK
