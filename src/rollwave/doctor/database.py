"""Checks of the database: connection, version, schema, roles, rights, row-level security, identity, listeners."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rollwave.doctor.finding import Finding, State, attempt, ok, problem, warning
from rollwave.domain.identity import Standing
from rollwave.errors import RollwaveError
from rollwave.settings import Settings
from rollwave.store import health
from rollwave.store.database import Pool, create_pool, direct_pool
from rollwave.store.health import TenantTable
from rollwave.store.labels import VIEW
from rollwave.store.migrate import migrations
from rollwave.store.url import DIRECT, remarks

OLDEST_POSTGRES = 15
CLOCK_TOLERANCE = 2.0
"""Maximum difference between this machine's clock and the database's, in seconds. Only log lines use this machine's."""

_MIGRATE = "Run `rollwave migrate`."
_SHOWN = 8


async def examine_database(settings: Settings) -> list[Finding]:
    """Run the checks of the database. Checks that cannot run because of an earlier problem are left out."""
    try:
        async with create_pool(settings.require_database_url(), size=2, pooled=settings.pooled) as pool:
            return _url(settings) + await _examine(pool, settings)
    except RollwaveError as error:
        return [problem("database", str(error), error.hint)]


def _url(settings: Settings) -> list[Finding]:
    found = remarks(settings.require_database_url(), settings.require_direct_url())
    return [warning("database URL", remark.text, remark.hint) for remark in found]


async def _examine(pool: Pool, settings: Settings) -> list[Finding]:
    findings = [
        await attempt("database", _version(pool)),
        await attempt("encoding", _encoding(pool)),
        await attempt("login", _login(pool)),
        await attempt("roles", _roles(pool)),
        await attempt("clock", _clock(pool)),
        await attempt("pooler", _pooler(settings), DIRECT),
    ]
    membership = await attempt(
        "taking pulse_app",
        _membership(pool),
        "Run `rollwave migrate --grant-to LOGIN` as the owner of the tables, or: GRANT pulse_app TO that login.",
    )
    schema = await attempt("schema", _schema(pool), "Run `rollwave migrate`: the schema is read as pulse_app.")
    findings += [membership, schema]
    if State.PROBLEM in {membership.state, schema.state}:
        return findings
    due = await attempt("campaigns due", _due(pool), _MIGRATE)
    return [
        *findings,
        await attempt("rights", _rights(pool), _MIGRATE),
        await attempt("row-level security", _row_level_security(pool)),
        await attempt("identity", _identity(pool)),
        await attempt("labels", _labels(pool), "Correct the view, and GRANT SELECT on it and its tables TO pulse_app."),
        due,
        *([await attempt("status values", _words(pool), _MIGRATE)] if due.state is State.OK else []),
        await attempt("listeners", _listeners(pool, settings)),
    ]


async def _version(pool: Pool) -> Finding:
    major, version = await health.server(pool)
    if major < OLDEST_POSTGRES:
        return problem("database", f"PostgreSQL {version} is too old", f"Upgrade to PostgreSQL {OLDEST_POSTGRES}.")
    return ok("database", f"PostgreSQL {version}")


async def _encoding(pool: Pool) -> Finding:
    encoding = await health.encoding(pool)
    if encoding != "UTF8":
        return warning(
            "encoding",
            f"the database's encoding is {encoding}: devices whose ids have characters that it lacks are skipped, "
            "and their reports are dropped",
            "Dump it, and restore it into a database created with ENCODING 'UTF8'; or use only ASCII in ids.",
        )
    return ok("encoding", "UTF8")


async def _login(pool: Pool) -> Finding:
    login = await health.login(pool)
    if login.unconfined:
        return warning(
            "login",
            f"{login.name} {'is a superuser' if login.superuser else 'has BYPASSRLS'}: "
            "outside the engine's transactions it sees the rows of all tenants",
            "Give the engine a login of its own: `createuser rollwave_engine`, "
            "`rollwave migrate --grant-to rollwave_engine`.",
        )
    return ok("login", f"{login.name} is confined by row-level security")


async def _roles(pool: Pool) -> Finding:
    roles = await health.roles(pool)
    if missing := [name for name in ("pulse_app", "rollwave_due") if name not in roles]:
        return problem("roles", f"no role {' or '.join(missing)}", _MIGRATE)
    for role in roles.values():
        if role.superuser or role.bypasses_rls:
            return problem(
                "roles",
                f"{role.name} bypasses row-level security: every tenant sees the rows of all tenants",
                f"ALTER ROLE {role.name} NOSUPERUSER NOBYPASSRLS",
            )
    if able := [role.name for role in roles.values() if role.can_login]:
        return warning(
            "roles", f"{' and '.join(able)} can log in", f"ALTER ROLE {able[0]} NOLOGIN (on Citus pulse_app must)"
        )
    return ok("roles", "pulse_app and rollwave_due cannot log in, and obey row-level security")


async def _pooler(settings: Settings) -> Finding:
    async with direct_pool(settings.require_direct_url()) as sessions:
        if not await health.direct(sessions):
            return problem("pooler", "the lock of a listener slot would go through a pooler, where it is lost", DIRECT)
    return ok("pooler", "locks bypass it" if settings.pooled else "none is used")


async def _membership(pool: Pool) -> Finding:
    await health.try_role(pool)
    return ok("taking pulse_app", "this login may take it")


async def _schema(pool: Pool) -> Finding:
    expected = migrations()[-1].version
    found = await health.schema_version(pool)
    if found is None:
        return problem("schema", "this database has no schema of Rollwave", _MIGRATE)
    if found < expected:
        return problem("schema", f"it is at {found}, this program needs {expected}", _MIGRATE)
    if found > expected:
        return problem("schema", f"it is at {found}, this program knows {expected}", "Upgrade Rollwave.")
    return ok("schema", f"at {found}, as this program needs it")


async def _row_level_security(pool: Pool) -> Finding:
    check = "row-level security"
    tables = await health.tenant_tables(pool)
    if missing := _names(table for table in tables if not table.present):
        return problem(check, f"no table {missing}", "Restore it: each migration runs only once.")
    if open_ := _names(table for table in tables if not (table.enabled and table.has_policy)):
        return problem(check, f"not on for {open_}", _MIGRATE)
    if seen := await health.seen_without_tenant(pool):
        return problem(
            check,
            f"pulse_app sees rows of {', '.join(seen)} without naming a tenant",
            "A policy allows that: look at pg_policies, and drop the policies that are not named rollwave_…",
        )
    if unforced := _names(table for table in tables if not table.forced and not table.adopted):
        return problem(check, f"not forced on {unforced}", _MIGRATE)
    if adopted := _names(table for table in tables if not table.forced):
        return warning(
            check,
            f"on everywhere, not forced on adopted tables: {adopted}",
            "When all users of these tables set app.tenant_id, run `rollwave migrate --force-rls`.",
        )
    return ok(check, f"on and forced on {len(tables)} tables; without a tenant no row is seen")


def _names(tables: Iterable[TenantTable]) -> str:
    return ", ".join(table.name for table in tables)


async def _rights(pool: Pool) -> Finding:
    wrong = await health.wrong_rights(pool)
    if wrong:
        shown = "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        return problem("rights", shown, f"{_MIGRATE} It repairs them, and lists what it repaired.")
    return ok("rights", "no other role but the owner, pulse_app and rollwave_due has rights on Rollwave's own tables")


async def _identity(pool: Pool) -> Finding:
    found = await health.installation(pool)
    if not found.standing.decided:
        undecided = found.undecided()
        return problem("identity", str(undecided), undecided.hint)
    if found.standing is Standing.NEW:
        return ok("identity", "the first worker binds the installation to this database")
    return ok("identity", f"installation {found.name} belongs to this database")


async def _labels(pool: Pool) -> Finding:
    view = await health.host_view(pool)
    if view is None:
        return ok("labels", "they come from the registry of devices")
    if not view.taken:
        return warning(
            "labels",
            f"{VIEW} is not used, so labels come from the registry: it is no view, or its owner {view.owner} is not "
            "the owner of the schema",
            f"ALTER VIEW {VIEW} OWNER TO the owner of the schema.",
        )
    if not view.invoker:
        return warning(
            "labels",
            f"the view {VIEW} reads its tables with the rights of {view.owner}, so row-level security does not "
            "separate the tenants in it",
            f"ALTER VIEW {VIEW} SET (security_invoker = on)",
        )
    return ok("labels", f"they come from the host's view {VIEW}")


async def _due(pool: Pool) -> Finding:
    number = await health.due_campaigns(pool)
    return ok("campaigns due", f"{number} need the engine")


async def _words(pool: Pool) -> Finding:
    check = "status values"
    if refused := await health.refused_words(pool):
        return problem(check, "; ".join(map(str, refused)), " ".join(each.hint for each in refused))
    if unknown := await health.unknown_words(pool):
        shown = ", ".join(f"{word} ({devices})" for word, devices in list(unknown.items())[:_SHOWN])
        return warning(
            check,
            f"devices of unfinished campaigns have a status that the engine does not know, and ignores: {shown}",
            "UPDATE ota_device_status to one of PENDING, DOWNLOADING, INSTALLING, SUCCESS, FAILED and SKIPPED: "
            "a device with another status gets no command and is not counted.",
        )
    return ok(
        check, "the tables allow all of the engine's status values, and no device of an unfinished campaign has another"
    )


async def _listeners(pool: Pool, settings: Settings) -> Finding:
    slots = settings.listener_slots
    alive = await health.slots_alive(pool, slots)
    silent = [str(slot) for slot in range(slots) if slot not in alive]
    if silent:
        return warning(
            "listeners",
            f"no listener in slot {', '.join(silent)} of {slots}: reports wait in the broker",
            "Start `rollwave worker` or `rollwave serve`, with the same ROLLWAVE_LISTENER_SLOTS on every worker.",
        )
    return ok("listeners", f"{slots} of {slots} slots have a listener")


async def _clock(pool: Pool) -> Finding:
    before = time.time()
    theirs = await health.clock(pool)
    apart = seconds_apart(before, theirs, time.time())
    if apart > CLOCK_TOLERANCE:
        return warning(
            "clock",
            f"this machine and the database are {apart:.0f} s apart",
            "Synchronize both with NTP; otherwise the times in logs mislead.",
        )
    return ok("clock", "this machine and the database agree")


def seconds_apart(before: float, theirs: float, after: float) -> float:
    """The minimum error of ``theirs``, in seconds, if it was read between ``before`` and ``after``."""
    return max(before - theirs, theirs - after, 0.0)
