"""Row-level security policies: which ones a table must have, and which of its own differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rollwave.domain.rights import Table
from rollwave.domain.row_security import OF_TENANT, Policy, policy_repairs, wanted

ADOPTED = Table("ota_campaigns", enabled=True, forced=False, of_tenants=True, adopted=True)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (replace(ADOPTED, adopted=False, forced=True), {"rollwave_tenant", "rollwave_due"}),
        (ADOPTED, {"rollwave_host", "rollwave_tenant_only", "rollwave_due"}),
        (replace(ADOPTED, forced=True), {"rollwave_tenant", "rollwave_due"}),
        (
            replace(ADOPTED, had_row_security=True),
            {"rollwave_select", "rollwave_insert", "rollwave_update", "rollwave_tenant_only", "rollwave_due"},
        ),
        (
            replace(ADOPTED, had_row_security=True, host_gave=True),
            {"rollwave_select", "rollwave_insert", "rollwave_update", "rollwave_due"},
        ),
        (replace(ADOPTED, name="tenants", had_row_security=True, host_gave=True), {"rollwave_select"}),
        (Table("rollwave_migrations", enabled=True, forced=False, of_tenants=False), {"rollwave_engine"}),
    ],
)
def test_every_tenant_table_has_the_expected_policies(table: Table, names: set[str]) -> None:
    assert {policy.name for policy in wanted(table)} == names
    assert policy_repairs(table, wanted(table)) == []


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ("(tenant_id = NULLIF(current_setting('app.tenant_id'::text, true), ''::text))", True),
        ("((tenant_id)::text = NULLIF(current_setting('app.tenant_id'::text, true), ''::text))", True),
        ("((tenant_id)::character varying(64) = NULLIF(current_setting('app.tenant_id'::text, true), ''::text))", True),
        ("true", False),
        ("(tenant_id = current_setting('app.tenant'::text, true))", False),
    ],
)
def test_an_expression_is_compared_without_postgresqls_additions(shown: str, same: bool) -> None:
    found = Policy("rollwave_tenant", using=shown, check=shown)
    assert found.like(Policy("rollwave_tenant", using=OF_TENANT, check=OF_TENANT)) is same


DUE_OF_TEXT = (
    "((status = ANY (ARRAY['RUNNING'::text, 'PAUSED'::text])) OR"
    " ((status = 'ABORTED'::text) AND (settled_at IS NULL)) OR"
    " ((status = 'CREATED'::text) AND (targeted_devices IS NOT NULL)) OR"
    " ((status <> ALL (ARRAY['CREATED'::text, 'RUNNING'::text, 'PAUSED'::text, 'ABORTED'::text])) AND"
    " (settled_at IS NULL) AND ((pending > 0) OR (downloading > 0) OR (installing > 0))) OR"
    " ((status <> ALL (ARRAY['CREATED'::text, 'RUNNING'::text, 'PAUSED'::text])) AND (unstored_after IS NOT NULL)))"
)
DUE_OF_VARCHAR = (
    "(((status)::text = ANY ((ARRAY['RUNNING'::character varying, 'PAUSED'::character varying])::text[])) OR"
    " (((status)::text = 'ABORTED'::text) AND (settled_at IS NULL)) OR"
    " (((status)::text = 'CREATED'::text) AND (targeted_devices IS NOT NULL)) OR"
    " (((status)::text <> ALL ((ARRAY['CREATED'::character varying, 'RUNNING'::character varying,"
    " 'PAUSED'::character varying, 'ABORTED'::character varying])::text[])) AND"
    " (settled_at IS NULL) AND ((pending > 0) OR (downloading > 0) OR (installing > 0))) OR"
    " (((status)::text <> ALL ((ARRAY['CREATED'::character varying, 'RUNNING'::character varying,"
    " 'PAUSED'::character varying])::text[])) AND (unstored_after IS NOT NULL)))"
)


@pytest.mark.parametrize("shown", [DUE_OF_TEXT, DUE_OF_VARCHAR], ids=["text", "varchar"])
def test_the_due_campaigns_policy_is_recognised_in_postgresqls_form(shown: str) -> None:
    due = next(policy for policy in wanted(ADOPTED) if policy.name == "rollwave_due")
    assert due.like(Policy("rollwave_due", "SELECT", "rollwave_due", using=shown))


def test_a_policy_for_another_role_is_a_different_policy() -> None:
    own = replace(ADOPTED, adopted=False, forced=True)
    found = [replace(policy, role="PUBLIC, anon") for policy in wanted(own)]
    assert [each.fault for each in policy_repairs(own, found)] == [
        "the policy rollwave_tenant on ota_campaigns differs from the one that Rollwave needs",
        "the policy rollwave_due on ota_campaigns differs from the one that Rollwave needs",
    ]


def test_a_hosts_own_policies_do_not_stop_the_engine() -> None:
    """It works until the next `rollwave migrate`, which drops policies that let every tenant in."""
    repairs = policy_repairs(replace(ADOPTED, had_row_security=True), wanted(ADOPTED))
    assert not any(each.needed for each in repairs)
    assert repairs[-1].fault == "the policy rollwave_host on ota_campaigns gives all roles access"
