"""Compares the rights in a database with the lists in the domain, and repairs differences for `rollwave migrate`."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from itertools import groupby
from typing import NamedTuple

import asyncpg

from rollwave.domain.rights import FUNCTIONS, OWN, SHARED, Function, Grant, Table
from rollwave.domain.rights_repaired import (
    ROLES,
    Repair,
    function_repairs,
    missing_roles,
    schema_repairs,
    table_repairs,
    trigger_repairs,
)
from rollwave.domain.row_security import Policy, policy_repairs
from rollwave.errors import DatabaseUnavailable
from rollwave.store.database import Connection
from rollwave.store.queries import load
from rollwave.store.schema_change import change_tables

_sql = load("rights")

_TABLES = sorted({*SHARED, *OWN})
_ROUNDS = 6
"""Maximum number of rounds. A repair may need an earlier one: roles, then owners, then rights."""


async def wrong(connection: Connection, *, force_rls: bool = False) -> list[Repair]:
    """Find differences. Changes nothing. Some differences are found only after earlier ones are repaired.

    Args:
        force_rls: row-level security must be forced on adopted tables too.
    """
    roles = [row["rolname"] for row in await connection.fetch(_sql["roles"])]
    if missing := missing_roles(roles):
        return missing
    schema, repairs = await _schema(connection)
    for row in await connection.fetch(_sql["functions"], FUNCTIONS):
        grants = [Grant(each, "EXECUTE") for each in row["grantees"]]
        function = Function(row["name"], row["signature"], row["right_owner"], row["definer"], grants)
        repairs += function_repairs(function, schema)
    policies = await _policies(connection)
    for table in await _tables(connection):
        repairs += table_repairs(table)
        repairs += policy_repairs(table, policies[table.name], force=force_rls)
        repairs += trigger_repairs(table)
    return repairs


class Repaired(NamedTuple):
    """The differences that were repaired, and those that could not be, a phrase for each."""

    done: list[str]
    left: list[str]


async def repair(connection: Connection, *, force_rls: bool = False) -> Repaired:
    """Grant and revoke until every right is correct.

    Each table is changed in its own transaction, so that workers that use another one continue.

    Raises:
        asyncpg.InsufficientPrivilegeError: this login may not repair a difference.
    """
    done: list[str] = []
    for _ in range(_ROUNDS):
        found = await wrong(connection, force_rls=force_rls)
        if not found:
            return Repaired(list(dict.fromkeys(done)), [])
        if found[0].place != ROLES:
            done += await _join_roles(connection)
        for _place, repairs in groupby(found, key=lambda each: each.place):
            of_place = list(repairs)
            await change_tables(connection, partial(connection.execute, "; ".join(each.command for each in of_place)))
            done += [each.fault for each in of_place]
    left = [each.fault for each in await wrong(connection, force_rls=force_rls)]
    return Repaired([fault for fault in dict.fromkeys(done) if fault not in left], left)


async def refused(connection: Connection, error: asyncpg.PostgresError) -> DatabaseUnavailable:
    """The error for a right that this login lacks, with a hint who can grant it."""
    row = await connection.fetchrow(_sql["may_create"])
    hint = (
        "Migrate as the owner of the tables, with CREATEROLE or with the roles pulse_app and rollwave_due "
        "(both NOLOGIN) created beforehand and granted to it WITH ADMIN OPTION."
    )
    if row and not row["allowed"]:
        hint = (
            f"Migrate as {row['owner']}, who owns the schema, or as it: "
            f"GRANT USAGE, CREATE ON SCHEMA {row['schema']} TO {row['login']} WITH GRANT OPTION. {hint}"
        )
    return DatabaseUnavailable(f"this login lacks a right: {error}", hint=hint)


async def let_roles_use_schema(connection: Connection) -> None:
    """Let both roles use the schema, if this login may grant that: later migrations create functions as one of them."""
    if not missing_roles([row["rolname"] for row in await connection.fetch(_sql["roles"])]):
        _, repairs = await _schema(connection)
        for each in repairs:
            await connection.execute(each.command)


async def _schema(connection: Connection) -> tuple[str, list[Repair]]:
    row = await connection.fetchrow(_sql["schema"])
    assert row is not None  # both roles exist
    return row["name"], schema_repairs(row["name"], row["may_use"] or ())


async def _join_roles(connection: Connection) -> list[str]:
    """Let this login take both roles, to change owners of functions and pause a copy's campaigns. Not for superusers.

    In PostgreSQL 16 and newer, a login can create roles that it cannot take.
    """
    roles = [row["rolname"] for row in await connection.fetch(_sql["memberships"])]
    for role in roles:
        await connection.execute(f"GRANT {role} TO CURRENT_USER")
    return [f"the login that migrates cannot take the role {role}" for role in roles]


async def _tables(connection: Connection) -> list[Table]:
    of_table: defaultdict[str, list[Grant]] = defaultdict(list)
    of_sequence: defaultdict[str, defaultdict[str, list[Grant]]] = defaultdict(lambda: defaultdict(list))
    for row in await connection.fetch(_sql["grants"], _TABLES):
        name, sequence = row["of_table"], row["sequence"]
        grants = of_table[name] if sequence is None else of_sequence[name][sequence]
        if row["grantee"] is not None:
            grants.append(Grant(row["grantee"], row["privilege"], row["column"], row["by_default"], row["of_owner"]))
    return [
        Table(**row, grants=of_table[row["name"]], sequences=of_sequence[row["name"]])
        for row in await connection.fetch(_sql["tables"], _TABLES)
    ]


async def _policies(connection: Connection) -> defaultdict[str, list[Policy]]:
    found: defaultdict[str, list[Policy]] = defaultdict(list)
    for row in await connection.fetch(_sql["policies"], _TABLES):
        of_table, *values = row
        found[of_table].append(Policy(*values))
    return found
