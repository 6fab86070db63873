"""Checks that the installation belongs to this database. Otherwise the engine neither listens nor sends."""

from __future__ import annotations

from rollwave.errors import ConfigurationError, IdentityUndecided
from rollwave.log import get_logger, report
from rollwave.log_once import LogOnce
from rollwave.store import codecs, identity
from rollwave.store.database import Pool, system_transaction

_log = get_logger("identity")

_told = LogOnce()
"""Databases for which the problem is logged already. Shared by the listener and the dispatch of a process."""


async def require(pool: Pool) -> str:
    """The installation's name, 12 hex digits. It distinguishes its broker sessions from those of other installations.

    Raises:
        IdentityUndecided: an operator must first decide whether this database is the original or a copy. Logged once.
        ConfigurationError: a codec of a host's pool changes texts or numbers.
    """
    async with system_transaction(pool) as connection:
        await codecs.require_faithful(connection)
        found = await identity.find(connection)
    if not found.standing.decided:
        undecided = found.undecided()
        if _told.is_new(found.here, str(undecided)):
            report(_log, "ota_identity_undecided", undecided)
        raise undecided
    if _told.clear(found.here):
        _log.info("ota_identity_decided", installation=found.name)
    return found.name


async def may_work(pool: Pool) -> bool:
    """Whether the engine may send for this database."""
    try:
        await require(pool)
    except IdentityUndecided:
        return False
    return True


async def require_same(direct: Pool, installation: str) -> None:
    """Check that ROLLWAVE_DATABASE_DIRECT_URL leads to this database, since listener locks are taken there.

    Raises:
        ConfigurationError: it leads to another database.
    """
    found = await identity.look(direct)
    if found.name != installation or not found.standing.decided:
        raise ConfigurationError(
            "ROLLWAVE_DATABASE_DIRECT_URL leads to another database than the pool",
            hint="Set ROLLWAVE_DATABASE_DIRECT_URL to the same database, past the pooler.",
        )
