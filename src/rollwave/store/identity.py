"""The database that an installation belongs to: bound by the first worker, or decided by an operator after a move."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import asyncpg

from rollwave.domain.campaign import Action
from rollwave.domain.identity import Standing, standing
from rollwave.domain.ids import CampaignId
from rollwave.errors import ConfigurationError, Conflict, IdentityUndecided
from rollwave.store import campaigns
from rollwave.store.database import Connection, Pool, named, system_transaction
from rollwave.store.queries import load

_sql = load("identity")

ACTOR = "rollwave migrate"
"""The actor in history of the pauses in a copy."""

PAUSED_BECAUSE = "this database was made a copy of another one: start the campaign only if it is meant to run here too"

WHICH = (
    "Say which it is: `rollwave migrate --moved` if this is the original after a restore, an upgrade or a move "
    "(its identity stays; while the original still runs, both take the session in the broker from each other), "
    "or `rollwave migrate --copy` if it is a copy (it gets an identity of its own, and its "
    "RUNNING campaigns are paused). Until then no worker listens or sends for it."
)

MAY_NOT_READ = (
    "As a superuser of PostgreSQL: GRANT EXECUTE ON FUNCTION pg_control_system() TO pulse_app, "
    "and to the login that migrates"
)


class Decision(StrEnum):
    """An operator's decision about a database that was copied or moved."""

    MOVED = "moved"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Installation:
    """The installation's rows. ``name``, 12 hex digits, distinguishes its broker sessions from other installations'."""

    name: str
    here: str | None
    bound_to: tuple[str | None, ...]
    standing: Standing

    def undecided(self) -> IdentityUndecided:
        """The error for an installation that is not :attr:`Standing.decided`."""
        if self.standing is Standing.UNREADABLE:
            return IdentityUndecided("PostgreSQL does not tell the engine which database this is", hint=MAY_NOT_READ)
        if self.standing is Standing.UNBOUND:
            text = "the installation in this database was used before, and nothing says in which database that was"
        else:
            before = next(each for each in self.bound_to if each not in {None, self.here})
            text = (
                "this database was copied or moved: its installation belongs to "
                f"{_spoken(before)}, and this is {_spoken(self.here)}"
            )
        return IdentityUndecided(text, hint=WHICH)

    def in_short(self) -> str:
        """The same as a short text without ids."""
        if self.standing is Standing.UNREADABLE:
            return "PostgreSQL does not tell which database this is: `rollwave migrate` says what to grant"
        return "this database was copied or moved: run `rollwave migrate --moved` or `rollwave migrate --copy`"


def _spoken(place: str | None) -> str:
    system, _, database = (place or "").partition("/")
    return f"database {database} of PostgreSQL system {system}"


async def read(connection: Connection) -> Installation:
    """Read the installation and the identifier of this database, as ``pulse_app``. Changes nothing."""
    rows = await connection.fetch(_sql["read"])
    here, used = rows[0]["here"], any(row["used"] for row in rows)
    bound_to = tuple(row["bound_to"] for row in rows if row["name"] is not None)
    return Installation(rows[0]["name"] or "", here, bound_to, standing(here, bound_to, used=used))


async def find(connection: Connection) -> Installation:
    """The same as :func:`read`, but binds the installation to this database if no worker has run before."""
    found = await read(connection)
    if found.standing is Standing.NEW:
        await connection.execute(_sql["bind_new"])
        found = await read(connection)  # another worker may have bound it first
    return found


async def look(pool: Pool) -> Installation:
    """The same as :func:`read`, in a transaction of its own."""
    async with system_transaction(pool) as connection:
        return await read(connection)


async def decide(connection: Connection, decision: Decision, *, bound_just_now: bool = False) -> str:
    """Store an operator's decision, in one transaction of the migrating login. Returns a message about the result.

    Args:
        bound_just_now: the installation was bound by the migration that this command has applied.

    Raises:
        Conflict: the decision is "copy", but the installation belongs to this database.
        IdentityUndecided: PostgreSQL does not tell the identifier of this database.
    """
    async with connection.transaction():
        found = await read(connection)
        if found.standing is Standing.UNREADABLE:
            raise found.undecided()
        if decision is Decision.MOVED:
            return await _moved(connection, found)
        if found.standing is Standing.HERE and not bound_just_now:
            raise Conflict(
                "--copy was not applied, because this database is where its installation belongs: the installation "
                "would lose its session in the broker, with the reports that wait in it, and its campaigns would stop",
                hint="Check DATABASE_URL, and run it on the copy. If a copy was declared the original by mistake "
                "(--moved), or the whole server's files were copied, docs/howto/run-in-production.md says how to make "
                "it a database of its own.",
            )
        return await _copy(connection)


async def _moved(connection: Connection, found: Installation) -> str:
    if found.standing.decided:
        return "nothing to decide: this database is where its installation belongs"
    await connection.execute(_sql["keep_one"])
    await connection.execute(_sql["bind"])
    kept = await read(connection)
    return f"this database is the original: its identity {kept.name} stays"


async def _copy(connection: Connection) -> str:
    await connection.execute(_sql["keep_one"])
    await connection.execute(_sql["renew"])
    await connection.execute(_sql["forget_slots"])
    made = await read(connection)
    paused = await _pause_all(connection)
    return f"this database is a copy: its identity is {made.name} now, and {paused} RUNNING campaigns are paused"


async def _pause_all(connection: Connection) -> int:
    # As the engine does, so that this works with any owner of the tables.
    await connection.execute("SET LOCAL ROLE pulse_app")
    running = await connection.fetch(_sql["running"])
    for tenant_id, campaign_id in running:
        async with named(connection, tenant_id):
            campaign = await campaigns.lock(connection, tenant_id, CampaignId(campaign_id))
            await campaigns.move(
                connection, campaign, Action.PAUSE, tenant_id=tenant_id, actor=ACTOR, reason=PAUSED_BECAUSE
            )
    await connection.execute("SET LOCAL ROLE NONE")
    return len(running)


async def let_engine_read(connection: Connection) -> None:
    """Grant ``pulse_app`` the right to read the identifier of this database, if it was revoked from PUBLIC.

    Raises:
        ConfigurationError: this login may not grant it.
    """
    if await connection.fetchval(_sql["may_read"]):
        return
    try:
        await connection.execute("GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO pulse_app")
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            "the engine may not ask PostgreSQL which database this is, so it would neither listen nor send",
            hint=MAY_NOT_READ,
        ) from error
