"""What each login may do: every statement is tried, in a transaction that is rolled back.

Grants are not read. So a grant without a policy, a policy without a grant, and a membership that passes on rights
show what they allow in effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.engine import Connection, connect

DENIED, ALLOWED = "denied", "allowed"
"""``ALLOWED``: the statement was permitted. It may have failed for another reason, such as a missing value."""

TENANTS = ("north", "south", "west")
"""The host has the first two tenants. A login that may register the third has too many rights."""

SITUATIONS: Mapping[str, str] = {
    "nothing set": "",
    **{f"tenant {tenant}": f"; SET LOCAL app.tenant_id = '{tenant}'" for tenant in TENANTS},
    "administrator": "; SET LOCAL app.is_admin = 'on'",
    "administrator of north": "; SET LOCAL app.is_admin = 'on'; SET LOCAL app.tenant_id = 'north'",
}


class Tried(NamedTuple):
    """One statement, and the login and tenant that it was tried with."""

    actor: str
    situation: str
    name: str
    action: str


class Objects(NamedTuple):
    """The objects that statements are tried on: tables with columns, sequences, and functions with argument types."""

    tables: dict[str, list[str]]
    sequences: list[str]
    functions: dict[str, str]


async def all_objects(root: Connection) -> Objects:
    """All objects of the schema."""
    tables: dict[str, list[str]] = {}
    for row in await root.fetch(
        "SELECT c.relname::text AS name, a.attname::text AS column FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY c.relname, a.attnum"
    ):
        tables.setdefault(row["name"], []).append(row["column"])
    sequences = await root.fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S' ORDER BY 1"
    )
    functions = await root.fetch(
        "SELECT proname::text, oidvectortypes(proargtypes) FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
    )
    return Objects(tables, [name for (name,) in sequences], {row[0]: row[1] for row in functions})


async def try_all_statements(
    actors: Mapping[str, str], objects: Objects, *, role: Mapping[str, str] | None = None
) -> dict[Tried, str]:
    """Try every statement. Returns the outcomes.

    ``actors``: URLs by name. ``role``: the role that an actor takes on.
    """
    found: dict[Tried, str] = {}
    statements = list(_statements(objects))
    for actor, url in actors.items():
        begin = f"BEGIN; SET LOCAL ROLE {role[actor]}" if role and actor in role else "BEGIN"
        async with connect(url) as connection:
            for situation, settings in SITUATIONS.items():
                outcomes = await _outcomes(connection, begin + settings, [each for _, _, each in statements])
                for (name, action, _), outcome in zip(statements, outcomes, strict=True):
                    found[Tried(actor, situation, name, action)] = outcome
    return found


def differences(before: Mapping[Tried, str], after: Mapping[Tried, str]) -> dict[Tried, tuple[str, str]]:
    """The statements with another outcome than before. New statements are left out."""
    return {key: (was, after[key]) for key, was in before.items() if after[key] != was}


def _statements(objects: Objects) -> Iterable[tuple[str, str, str]]:
    for table, columns in objects.tables.items():
        yield table, "SELECT", f"SELECT FROM {table}"
        if "tenant_id" in columns:
            for tenant in TENANTS:
                yield table, f"INSERT {tenant}", f"INSERT INTO {table} (tenant_id) VALUES ('{tenant}')"
        else:
            yield table, "INSERT", f"INSERT INTO {table} DEFAULT VALUES"
        for column in ("tenant_id",) if "tenant_id" in columns else columns:
            yield table, f"UPDATE {column}", f"UPDATE {table} SET {column} = {column}"
        yield table, "DELETE", f"DELETE FROM {table}"
        yield table, "TRUNCATE", f"TRUNCATE {table} CASCADE"
    for sequence in objects.sequences:
        yield sequence, "USAGE", f"SELECT nextval('{sequence}')"
        yield sequence, "SELECT", f"SELECT last_value FROM {sequence}"
        yield sequence, "UPDATE", f"SELECT setval('{sequence}', 1000)"
    for function, types in objects.functions.items():
        arguments = ", ".join(f"NULL::{each}" for each in types.split(", ") if each)
        yield function, "EXECUTE", f"SELECT {function}({arguments})"


_TRY = """
DO $try$
DECLARE
    statement text;
    rows bigint;
    outcome text;
    outcomes jsonb := '[]';
BEGIN
    FOR statement IN SELECT jsonb_array_elements_text($statements$%s$statements$::jsonb) LOOP
        BEGIN
            EXECUTE statement;
            GET DIAGNOSTICS rows = ROW_COUNT;
            RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = rows || ' rows'; -- rolled back
        EXCEPTION
            WHEN insufficient_privilege THEN outcome := 'denied';
            WHEN SQLSTATE 'ZZ000' THEN outcome := SQLERRM;
            WHEN OTHERS THEN outcome := 'allowed';
        END;
        outcomes := outcomes || to_jsonb(outcome);
    END LOOP;
    PERFORM set_config('tried.outcomes', outcomes::text, true);
END $try$
"""


async def _outcomes(connection: Connection, begin: str, statements: list[str]) -> list[str]:
    await connection.execute(f"{begin}; {_TRY % json.dumps(statements)}")
    outcomes: list[str] = json.loads(await connection.fetchval("SELECT current_setting('tried.outcomes')"))
    await connection.execute("ROLLBACK")
    return outcomes
