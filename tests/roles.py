"""Roles belong to a PostgreSQL server, not to a database: without this, they would outlive the test that made them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.engine import Connection, connect

_ATTRIBUTES = {
    "rolsuper": "SUPERUSER",
    "rolinherit": "INHERIT",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolcanlogin": "LOGIN",
    "rolbypassrls": "BYPASSRLS",
}


@dataclass(frozen=True, slots=True)
class _Roles:
    """``attributes``: those of each role, as ALTER ROLE takes them. ``memberships``: pairs of role and member."""

    attributes: dict[str, str]
    memberships: set[tuple[str, str]]


@asynccontextmanager
async def roles_restored(server: str) -> AsyncIterator[None]:
    """Undo what the block does to the roles of ``server``. Databases that it makes must be dropped before its end."""
    async with connect(server) as root:
        before = await _read(root)
    try:
        yield
    finally:
        async with connect(server) as root:
            await _restore(root, before)


async def _restore(root: Connection, before: _Roles) -> None:
    now = await _read(root)
    if new := ", ".join(now.attributes.keys() - before.attributes.keys()):
        await root.execute(f"DROP OWNED BY {new} CASCADE; DROP ROLE {new}")
    for role, attributes in before.attributes.items():
        if now.attributes.get(role, attributes) != attributes:
            await root.execute(f"ALTER ROLE {role} {attributes}")
    for role, member in (await _read(root)).memberships - before.memberships:
        await root.execute(f"REVOKE {role} FROM {member}")
    assert await _read(root) == before, "a test may not drop a role or a membership of others"


async def _read(root: Connection) -> _Roles:
    roles = await root.fetch("SELECT * FROM pg_roles WHERE rolname !~ '^pg_'")
    memberships = await root.fetch(
        "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members WHERE member::regrole::text !~ '^pg_'"
    )
    return _Roles(
        {
            role["rolname"]: " ".join(f"{'' if role[column] else 'NO'}{name}" for column, name in _ATTRIBUTES.items())
            for role in roles
        },
        {(role, member) for role, member in memberships},
    )
