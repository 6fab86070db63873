"""Compares the rights that roles have with those that they must have, and gives the statements that repair them.

:mod:`rollwave.domain.rights` lists the rights. :mod:`rollwave.store.rights` reads the present ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from rollwave.domain.rights import CALLED, COLUMNS, DEFINERS, DUE, ENGINE, OWN, TRIGGERS, Function, Grant, Table

ROLES = "roles"
"""The place of repairs that come first, since nothing else can be checked before."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A difference, described in a phrase, and the SQL that repairs it.

    Attributes:
        place: repairs with the same place are executed in one transaction.
        needed: the engine cannot work without this repair. False: a role has too many rights.
    """

    place: str
    fault: str
    command: str
    needed: bool = False


def missing_roles(found: Collection[str]) -> list[Repair]:
    """Create missing roles. Everything else can be checked only after that."""
    return [
        Repair(
            ROLES,
            f"there is no role {role}",
            f"CREATE ROLE {role} NOLOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE",
            needed=True,
        )
        for role in (ENGINE, DUE)
        if role not in found
    ]


def schema_repairs(schema: str, may_use: Collection[str]) -> list[Repair]:
    """Let both roles use the schema, whose name is quoted."""
    return [
        Repair("schema", f"{role} lacks USAGE on the schema", f"GRANT USAGE ON SCHEMA {schema} TO {role}", needed=True)
        for role in (ENGINE, DUE)
        if role not in may_use
    ]


def table_repairs(table: Table) -> list[Repair]:
    """Revoke rights that are too many; if there are none, grant the missing ones."""
    return list(_excess(table)) or list(_missing(table))


def _excess(table: Table) -> Iterator[Repair]:
    if table.adopted:
        return
    given: set[tuple[str, str, str | None]] = {(ENGINE, privilege, None) for privilege in table.wanted.split()}
    given |= {
        (role, privilege, column)
        for (role, privilege, name), columns in COLUMNS.items()
        if name == table.name
        for column in columns
    }
    surplus = [
        each
        for each in table.grants
        if (each.grantee, each.privilege, each.column) not in given and _is_ours_to_take(table, each)
    ]
    for grantee, privileges in _by_grantee(surplus).items():
        command = f"REVOKE {privileges} ON TABLE {table.name} FROM {grantee} CASCADE"
        yield Repair(table.name, f"{grantee} has {privileges} on {table.name}", command)
    for sequence, grants in table.sequences.items():
        allowed = {(ENGINE, "USAGE")} if "INSERT" in table.wanted else set()
        surplus = [
            each for each in grants if (each.grantee, each.privilege) not in allowed and _is_ours_to_take(table, each)
        ]
        for grantee, privileges in _by_grantee(surplus).items():
            command = f"REVOKE {privileges} ON SEQUENCE {sequence} FROM {grantee} CASCADE"
            yield Repair(table.name, f"{grantee} has {privileges} on {sequence}", command)


def trigger_repairs(table: Table) -> list[Repair]:
    """Create the triggers that an adopted table lacks because the host dropped them or the table."""
    if not table.adopted:
        return []
    return [
        Repair(
            table.name,
            f"there is no trigger {name} on {table.name}",
            f"DO $$ BEGIN CREATE OR REPLACE TRIGGER {name} {definition};"
            " EXCEPTION WHEN feature_not_supported THEN NULL; END $$",  # distributed tables of Citus have no triggers
        )
        for name, definition in TRIGGERS.get(table.name, {}).items()
        if name not in table.triggers
    ]


def _is_ours_to_take(table: Table, grant: Grant) -> bool:
    """Whether a grant is revoked: on Rollwave's own tables always, on the shared ones if default privileges gave it."""
    return not grant.of_owner and (table.name in OWN or grant.by_default)


def _missing(table: Table) -> Iterator[Repair]:
    has = {(each.grantee, each.privilege, each.column) for each in table.grants}
    lacks = [each for each in table.wanted.split() if (ENGINE, each, None) not in has]
    if lacks:
        privileges = ", ".join(lacks)
        command = f"GRANT {privileges} ON TABLE {table.name} TO {ENGINE}"
        yield Repair(table.name, f"{ENGINE} lacks {privileges} on {table.name}", command, needed=True)
    for (role, privilege, name), columns in COLUMNS.items():
        if name == table.name and not has >= {(role, privilege, column) for column in columns}:
            of = ", ".join(columns)
            command = f"GRANT {privilege} ({of}) ON TABLE {name} TO {role}"
            yield Repair(table.name, f"{role} lacks {privilege} ({of}) on {name}", command, needed=True)
    for sequence, grants in table.sequences.items():
        given = {(each.grantee, each.privilege) for each in grants}
        if "INSERT" in table.wanted and (ENGINE, "USAGE") not in given:
            command = f"GRANT USAGE ON SEQUENCE {sequence} TO {ENGINE}"
            yield Repair(table.name, f"{ENGINE} lacks USAGE on {sequence}", command, needed=True)


def function_repairs(function: Function, schema: str) -> list[Repair]:
    """Set the right owner first. Then let only the engine, or no role, call the function."""
    name, signature = function.name, function.signature
    of_due = name in DEFINERS
    if of_due and not function.right_owner:
        # A new owner needs the right to create objects in the schema during this statement.
        command = (
            f"GRANT CREATE ON SCHEMA {schema} TO {DUE}; ALTER FUNCTION {signature} OWNER TO {DUE};"
            f" REVOKE CREATE ON SCHEMA {schema} FROM {DUE}"
        )
        return [Repair(name, f"the function {name} does not belong to {DUE}", command)]
    if of_due and not function.definer:
        command = _as_owner(f"ALTER FUNCTION {signature} SECURITY DEFINER", of_due=of_due)
        return [Repair(name, f"the function {name} does not run with the rights of {DUE}", command, needed=True)]
    callers = {ENGINE} if name in CALLED else set()
    repairs = [
        Repair(
            name,
            f"{grantee} has EXECUTE on the function {name}",
            _as_owner(f"REVOKE ALL ON FUNCTION {signature} FROM {grantee} CASCADE", of_due=of_due),
        )
        for grantee in sorted({each.grantee for each in function.grants} - callers)
    ]
    if callers - {each.grantee for each in function.grants}:
        command = _as_owner(f"GRANT EXECUTE ON FUNCTION {signature} TO {ENGINE}", of_due=of_due)
        repairs.append(Repair(name, f"{ENGINE} lacks EXECUTE on the function {name}", command, needed=True))
    return repairs


def _as_owner(command: str, *, of_due: bool) -> str:
    return f"SET LOCAL ROLE {DUE}; {command}; RESET ROLE" if of_due else command


def _by_grantee(grants: Iterable[Grant]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for each in grants:
        privilege = each.privilege if each.column is None else f"{each.privilege} ({each.column})"
        found.setdefault(each.grantee, []).append(privilege)
    return {grantee: ", ".join(sorted(privileges)) for grantee, privileges in sorted(found.items())}
