"""The list of columns that a host's tables may have already is that of the migrations."""

from __future__ import annotations

import re

from rollwave.store.column_types import ADDED
from rollwave.store.migrate import migrations

FIRST = 20
_NAMES = {"timestamptz": "timestamp with time zone"}


def test_every_column_that_migrations_add_to_shared_tables_is_listed() -> None:
    found: dict[str, dict[str, str]] = {}
    for each in migrations():
        if each.version < FIRST:
            continue
        sql = re.sub("--.*", "", each.sql)
        for table, columns in re.findall(r"^ALTER TABLE (\w+)\s+(ADD COLUMN IF NOT EXISTS [^;]*)", sql, re.MULTILINE):
            added = re.findall(r"ADD COLUMN IF NOT EXISTS (\w+) (double precision[\[\]]*|[\w\[\]]+)", columns)
            found.setdefault(table, {}).update({name: _NAMES.get(type_, type_) for name, type_ in added})
    assert found == ADDED
