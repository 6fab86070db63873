"""The rights that each role must have on each table, sequence and function, and the shape of those that it has.

The engine works as ``pulse_app``; ``rollwave_due`` owns the functions that find due campaigns. On Rollwave's own
tables, no role but the owner has further rights. On a host's tables, ``pulse_app`` gets the rights that the
engine needs, and nothing is revoked. Policies are in :mod:`rollwave.domain.row_security`;
:mod:`rollwave.domain.rights_repaired` repairs differences.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

ENGINE, DUE = "pulse_app", "rollwave_due"

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
    "ota_campaign_plans": "SELECT INSERT",
    "ota_campaign_points": "SELECT INSERT UPDATE DELETE",
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
    "rollwave_console_secret": "SELECT",
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
