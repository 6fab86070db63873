"""The row-level security policies of each table, and the statements that repair differences.

A table that Rollwave made shows only the rows of the tenant in ``app.tenant_id``. Row-level security is forced, so it
applies to the owner too. On a table that a host made, the policies depend on the host's row-level security:

- The host had it on the table, or has created permissive policies since: its policies stay, and ``pulse_app`` gets a
  policy for each command that the engine uses. ``pulse_app`` is also restricted to the tenant that it sets, unless the
  host itself uses that role.
- The host did not have it: all roles have access as before, except ``pulse_app``, which is restricted to the tenant
  that it sets. After ``rollwave migrate --force-rls`` all roles are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from rollwave.domain.rights import DUE, ENGINE, Table
from rollwave.domain.rights_repaired import Repair

OF_TENANT = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')"
_OF_NO_TENANT = "NULLIF(current_setting('app.tenant_id', true), '') IS NULL"
_CONFINED = f"current_user <> '{ENGINE}' OR {OF_TENANT}"
_ALL_BUT_DUE = f"current_user <> '{DUE}'"
_DUE = (
    "status IN ('RUNNING', 'PAUSED') OR status = 'ABORTED' AND settled_at IS NULL"
    " OR status = 'CREATED' AND targeted_devices IS NOT NULL"
    " OR status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND settled_at IS NULL"
    " AND (pending > 0 OR downloading > 0 OR installing > 0)"
    " OR status NOT IN ('CREATED', 'RUNNING', 'PAUSED') AND unstored_after IS NOT NULL"
)

_OPEN = "rollwave_host"
"""The policy that keeps the access of all roles as it was."""

_DIFFERS = "differs from the one that Rollwave needs"
_TOO_MUCH = "is one of an earlier version and allows too much"
_GIVES_ALL = "gives all roles access"

_ADDED = re.compile(r'::"?[\w.]+"?( varying)?(\(\d+\))?(\[\])?|[()\s]')
"""Casts, parentheses and blanks, which PostgreSQL adds to an expression when it prints it."""

_IN = re.compile(r"(\w+) IN \(([^)]*)\)")
_NOT_IN = re.compile(r"(\w+) NOT IN \(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Policy:
    """The parts of ``CREATE POLICY``. ``using`` and ``check`` are expressions; None: the policy has none."""

    name: str
    command: str = "ALL"
    role: str = "PUBLIC"
    permissive: bool = True
    using: str | None = None
    check: str | None = None

    def like(self, other: Policy) -> bool:
        """Whether both policies mean the same, although PostgreSQL prints expressions with casts and parentheses."""
        return _plain(self) == _plain(other)


def _plain(policy: Policy) -> tuple[object, ...]:
    # A policy without a check uses its other expression as the check.
    check = policy.check or (policy.using if policy.command in {"ALL", "UPDATE"} else None)
    expressions = (_bare(each) if each else None for each in (policy.using, check))
    return policy.name, policy.command, policy.role, policy.permissive, *expressions


def _bare(expression: str) -> str:
    expression = _NOT_IN.sub(r"\1 <> ALL (ARRAY[\2])", expression)
    return _ADDED.sub("", _IN.sub(r"\1 = ANY (ARRAY[\2])", expression)).lower()


def wanted(table: Table) -> list[Policy]:
    """Rollwave's policies for a table."""
    return list(_wanted(table))


def _wanted(table: Table) -> Iterator[Policy]:
    if not table.of_tenants:
        secret = table.name == "rollwave_console_secret"  # nothing that acts for a tenant has a use for it
        yield Policy("rollwave_engine", role=ENGINE, using=_OF_NO_TENANT if secret else "true")
    elif not table.adopted or (table.forced and not table.had_row_security):
        yield Policy("rollwave_tenant", using=OF_TENANT, check=OF_TENANT)
    elif not table.had_row_security:
        yield Policy(_OPEN, using=_ALL_BUT_DUE, check=_ALL_BUT_DUE)
        yield Policy("rollwave_tenant_only", permissive=False, using=_CONFINED)
    else:
        for command in table.wanted.split():
            yield Policy(
                f"rollwave_{command.lower()}",
                command,
                ENGINE,
                using=None if command == "INSERT" else OF_TENANT,
                check=OF_TENANT if command in {"INSERT", "UPDATE"} else None,
            )
        if not table.host_gave:
            yield Policy("rollwave_tenant_only", permissive=False, using=_CONFINED)
    if table.name == "ota_campaigns":
        yield Policy("rollwave_due", "SELECT", DUE, using=_DUE)
    if table.name == "rollwave_brakes":
        yield Policy("rollwave_due", "SELECT", DUE, using="true")


def policy_repairs(table: Table, found: Collection[Policy], *, force: bool = False) -> list[Repair]:
    """The repairs of a table's row-level security. ``found``: its present policies of Rollwave, by name.

    ``force``: whether row-level security is forced on an adopted table.
    """
    repairs = []
    name = table.name
    if not table.enabled:
        command = f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
        repairs.append(Repair(name, f"row-level security is off for {name}", command))
    if not table.forced and table.of_tenants and (force or not table.adopted):
        command = f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
        return [*repairs, Repair(name, f"row-level security is not forced on {name}", command)]
    before: Mapping[str, Policy] = {policy.name: policy for policy in found}
    after = {policy.name: policy for policy in wanted(table)}
    for policy in after.values():
        if policy.name not in before:
            fault = f"there is no policy {policy.name} on {name}"
            needed = policy.role != ENGINE or _OPEN not in before
            repairs.append(Repair(name, fault, _create(name, policy), needed=needed))
        elif not policy.like(before[policy.name]):
            command = f"DROP POLICY {policy.name} ON {name}; {_create(name, policy)}"
            repairs.append(Repair(name, f"the policy {policy.name} on {name} {_DIFFERS}", command))
    for extra in sorted(before.keys() - after.keys()):
        command = f"DROP POLICY {extra} ON {name}"
        what = _GIVES_ALL if extra == _OPEN else _TOO_MUCH
        repairs.append(Repair(name, f"the policy {extra} on {name} {what}", command))
    return repairs


def _create(table: str, policy: Policy) -> str:
    using = f" USING ({policy.using})" if policy.using else ""
    check = f" WITH CHECK ({policy.check})" if policy.check else ""
    kind = "PERMISSIVE" if policy.permissive else "RESTRICTIVE"
    return f"CREATE POLICY {policy.name} ON {table} AS {kind} FOR {policy.command} TO {policy.role}{using}{check}"
