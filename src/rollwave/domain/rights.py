"""The rights of each role on each table, sequence and function, and the statements that repair differences.

The engine works as ``pulse_app``; ``rollwave_due`` owns the functions that find due campaigns. On Rollwave's own
tables, no role but the owner has further rights. On a host's tables, ``pulse_app`` gets the rights that the
engine needs, and nothing is revoked. Policies are in :mod:`rollwave.domain.row_security`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

ENGINE, DUE = "pulse_app", "rollwave_due"

ROLES = "roles"
"""The place of repairs that come first, since nothing else can be checked before."""

SHARED: Mapping[str, str] = {
    "tenants": "SELECT INSERT",
    "devices": "SELECT INSERT UPDATE",
    "device_groups": "SELECT INSERT UPDATE",
    "device_group_members": "SELECT INSERT DELETE",
    "firmware_versions": "SELECT INSERT DELETE",
    "ota_campaigns": "SELECT INSERT UPDATE",
    "ota_device_status": "SELECT INSERT UPDATE",
}
"""The engine's rights on the seven tables that a host may have made: SQL privileges, separated by blanks."""

OF_A_HOST: Mapping[str, str] = {**SHARED, "tenants": "SELECT"}
"""The engine's rights on these tables if the host made them: the host registers tenants."""

OWN: Mapping[str, str] = {
    "ota_campaign_budget_held": "SELECT INSERT UPDATE DELETE",
    "ota_campaign_budget_values": "SELECT INSERT UPDATE DELETE",
    "ota_campaign_cells": "SELECT INSERT UPDATE DELETE",
    "ota_campaign_history": "SELECT INSERT",
    "ota_campaign_policies": "SELECT INSERT",
    "ota_campaign_ranks": "SELECT INSERT DELETE",
    "ota_campaign_segments": "SELECT INSERT UPDATE DELETE",
    "ota_campaign_test_buckets": "SELECT INSERT UPDATE DELETE",
    "ota_campaign_tests": "SELECT INSERT UPDATE DELETE",
    "ota_campaign_waves": "SELECT INSERT UPDATE DELETE",
    "ota_quarantine": "SELECT INSERT DELETE",
    "rollwave_adopted_tables": "SELECT",
    "rollwave_api_keys": "SELECT INSERT UPDATE",
    "rollwave_device_fields": "SELECT INSERT UPDATE",
    "rollwave_brake_history": "SELECT INSERT",
    "rollwave_brakes": "SELECT INSERT DELETE",
    "rollwave_event_consumers": "SELECT INSERT UPDATE",
    "rollwave_group_import_devices": "SELECT INSERT UPDATE DELETE",
    "rollwave_group_imports": "SELECT INSERT UPDATE DELETE",
    "rollwave_idempotency": "SELECT INSERT DELETE",
    "rollwave_installation": "SELECT",
    "rollwave_listener_slots": "SELECT INSERT UPDATE",
    "rollwave_migrations": "SELECT",
    "rollwave_policies": "SELECT INSERT UPDATE DELETE",
}
"""The engine's rights on Rollwave's own tables."""

COLUMNS: Mapping[tuple[str, str, str], Sequence[str]] = {
    (ENGINE, "UPDATE", "rollwave_installation"): ("id", "bound_to", "bound_at"),
    (DUE, "SELECT", "ota_campaigns"): (
        *("tenant_id", "id", "status", "settled_at", "targeted_devices"),
        *("pending", "downloading", "installing", "policy_revision", "unstored_after"),
    ),
    (DUE, "SELECT", "rollwave_brakes"): ("tenant_id", "kind", "starts_at", "ends_at"),
    (ENGINE, "UPDATE", "ota_campaign_policies"): (
        *("progress_timeout", "answer_timeout", "device_timeout", "max_attempts", "retry_on"),
    ),
}
"""Rights on single columns, by role, privilege and table."""

DEFINERS = (
    *("rollwave_due_campaigns", "rollwave_due_campaigns_2", "rollwave_due_campaigns_3", "rollwave_due_campaigns_4"),
    "rollwave_halted_tenants",
)
"""Functions that run with the rights of ``rollwave_due``, their owner."""

FORGETTING = ("rollwave_forget_campaign", "rollwave_forget_import", "rollwave_forget_tenant")
"""Functions that triggers execute with the rights of their owner. No role may call them."""

CALLED = (
    *DEFINERS,
    *("ota_fitting", "ota_status_rank", "rollwave_apply_reports", "rollwave_count", "rollwave_here"),
    *("rollwave_host_devices", "rollwave_host_labels", "rollwave_host_labels_of", "rollwave_labels"),
    *("rollwave_labels_of", "rollwave_record_devices", "rollwave_version_key", "rollwave_budget_value"),
    *("rollwave_unstored", "rollwave_heard", "rollwave_heard_at", "rollwave_microseconds", "rollwave_registered"),
)
"""Functions that the engine calls."""

FUNCTIONS = (*CALLED, *FORGETTING)

TRIGGERS: Mapping[str, Mapping[str, str]] = {
    table: {
        f"{function}{plural}": f"AFTER {event} ON {table} FOR EACH {each} EXECUTE FUNCTION {function}()"
        for plural, event, each in (("", "DELETE", "ROW"), ("s", "TRUNCATE", "STATEMENT"))
    }
    for table, function in (("tenants", "rollwave_forget_tenant"), ("ota_campaigns", "rollwave_forget_campaign"))
}
"""Triggers on a host's tables, by table and name. They delete Rollwave's rows of a deleted tenant or campaign."""


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


@dataclass(frozen=True, slots=True)
class Grant:
    """One entry of an access list. ``grantee`` is quoted for SQL; ``PUBLIC`` is every role.

    ``by_default``: default privileges give this right on every new object. ``of_owner``: the grantee owns the object.
    """

    grantee: str
    privilege: str
    column: str | None = None
    by_default: bool = False
    of_owner: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table's present rights.

    Attributes:
        adopted: a host made it.
        had_row_security: the host had row-level security on it, or has made policies since.
        host_gave: pulse_app had rights on it before: it is a role that the host works with.
        grants: without those of the owner, unless that is pulse_app.
        sequences: the grants on each sequence of its ids.
        triggers: names of Rollwave's enabled triggers.
    """

    name: str
    enabled: bool
    forced: bool
    of_tenants: bool
    adopted: bool = False
    had_row_security: bool = False
    host_gave: bool = False
    grants: Collection[Grant] = ()
    sequences: Mapping[str, Collection[Grant]] = field(default_factory=dict)
    triggers: Collection[str] = ()

    @property
    def wanted(self) -> str:
        """The privileges that the engine needs on the table, separated by blanks."""
        return (OF_A_HOST if self.adopted else SHARED).get(self.name) or OWN[self.name]


@dataclass(frozen=True, slots=True)
class Function:
    """The present owner and rights of one of Rollwave's functions.

    Attributes:
        signature: its name with the types of its arguments.
        right_owner: it belongs to rollwave_due, which only matters for :data:`DEFINERS`.
        definer: it runs with the rights of its owner.
        grants: without those of the owner.
    """

    name: str
    signature: str
    right_owner: bool
    definer: bool
    grants: Collection[Grant]


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
