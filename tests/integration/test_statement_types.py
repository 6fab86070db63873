"""Parameters and columns of statements have types that no host's codec changes: numbers, booleans, text (ADR 30)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

import rollwave
from rollwave.store.migrate import migrate
from tests import placing_statements
from tests.engine import Connection, connect
from tests.host.platform import make_host
from tests.integration.test_statements_stripped import every_statement

PLAIN = {"bool", "int2", "int4", "int8", "float8", "text", "varchar", "void"}
ALLOWED = PLAIN | {f"{name}[]" for name in PLAIN - {"varchar", "void"}}

OF_MIGRATION = {"SELECT quote_ident($1)"}
"""Statements that `rollwave migrate` sends on its own connection."""

_SEVERAL = re.compile(r"\A(--[^\n]*\n|[^$;-]|-(?!-))*;\s*[A-Za-z]")
"""Several statements without parameters are sent as one text, and return nothing."""

OTHER_TYPES = """
ALTER TABLE ota_campaigns ALTER abort_threshold TYPE numeric(4, 3), ADD canary_percent numeric(5, 2) DEFAULT 5;
ALTER TABLE firmware_versions ALTER file_size_bytes TYPE numeric;
ALTER TABLE devices ADD created_at timestamp DEFAULT now(), ADD attributes json DEFAULT '{}';
"""
"""A host's columns with other types than the contract's."""


def statements_in_code() -> Iterator[tuple[str, str]]:
    """SQL in Python code: literals that are passed to a connection."""
    root = files(rollwave)
    for path in sorted(Path(str(root)).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            match call:
                case ast.Call(
                    func=ast.Attribute(attr="fetch" | "fetchrow" | "fetchval" | "execute" | "executemany"),
                    args=[ast.Constant(value=str(sql)), *_],
                ):
                    yield f"{path.name}:{call.lineno}", sql


async def exchanged(connection: Connection, sql: str) -> set[str]:
    """The names of the types of a statement's parameters and columns."""
    if sql.startswith("DECLARE"):  # PostgreSQL describes the SELECT of a cursor, and then the rows fetched from it.
        prepared = await connection.prepare(sql.partition("FOR\n")[2])
        await connection.execute(sql, *["1" if each.name == "text" else 1 for each in prepared.get_parameters()])
    else:
        prepared = await connection.prepare(sql)
    return {each.name for each in prepared.get_parameters()} | {each.type.name for each in prepared.get_attributes()}


@pytest.mark.parametrize("columns", ["ours", "a host's"])
async def test_every_statement_uses_only_built_in_types(empty_database: str, columns: str) -> None:
    if columns == "a host's":
        host = await make_host(empty_database, rows=False)
        async with connect(host.owner) as owner:
            await owner.execute(OTHER_TYPES)
        host.migrate()
    else:
        await migrate(empty_database)
    found = {}
    async with connect(empty_database) as connection, connection.transaction():
        placing = [each[:2] for each in await placing_statements.statements(connection, "north", 7, "all")]
        for name, sql in [*every_statement(), *placing, *statements_in_code()]:
            if sql in OF_MIGRATION or _SEVERAL.search(sql):
                continue
            if others := await exchanged(connection, sql) - ALLOWED:
                found[name] = others
    assert found == {}
