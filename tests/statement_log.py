"""Reads PostgreSQL's log of all statements, and checks how tenant tables were used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SETTINGS = {
    "log_statement": "all",
    "log_destination": "jsonlog",
    "logging_collector": "on",
    "log_filename": "statements.log",
    "log_rotation_age": "0",
    "log_rotation_size": "0",
    "log_parameter_max_length": "200",
}
"""Server options that :func:`read` needs. Statements are logged to ``<data>/log/statements.json``."""

_STATEMENT = re.compile(r"^(?:statement|execute [^:]*): (.*)$", re.DOTALL)
_ROLE = re.compile(r"^SET LOCAL ROLE pulse_app$", re.IGNORECASE)
_TENANT = re.compile(r"^SET LOCAL app\.tenant_id = E?'(.+)'$", re.IGNORECASE)
_HARMLESS = (
    r"plan_cache_mode|enable_\w+|jit|random_page_cost"
    "|statement_timeout|lock_timeout|idle_in_transaction_session_timeout"
)
_LEAVES = re.compile(rf"^(RESET|SET)\b(?! LOCAL (?:{_HARMLESS})\b)", re.IGNORECASE)
_FIRST_PARAMETER = re.compile(r"\$1 = '([^']*)'")
_NOT_SQL = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log. ``transaction`` is the virtual transaction id, which every statement has."""

    session: str
    transaction: str
    database: str
    application: str
    user: str
    severity: str
    message: str
    detail: str

    @property
    def sql(self) -> str | None:
        """The statement in this line, of the simple or the extended protocol."""
        found = _STATEMENT.match(self.message)
        return found[1].strip() if found and self.severity == "LOG" else None


def read(log: Path) -> Iterator[Line]:
    """All complete lines so far."""
    for text in log.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            row = json.loads(text)
            yield Line(
                row.get("session_id", ""),
                row.get("vxid", ""),
                row.get("dbname", ""),
                row.get("application_name", ""),
                row.get("user", ""),
                row["error_severity"],
                row.get("message", ""),
                row.get("detail", ""),
            )


@dataclass(slots=True)
class _Transaction:
    """The state of a session's current transaction."""

    number: str = ""
    opened: bool = False
    role: bool = False
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number of correct uses of each tenant table, and every incorrect statement."""

    touched: dict[str, int]
    wrong: list[str]


def judge(lines: Iterable[Line], tables: Iterable[str]) -> Verdict:
    """Follow each session, and check the transaction's state at each statement that names one of ``tables``."""
    named = re.compile(rf"\b({'|'.join(tables)})\b")
    sessions: dict[str, _Transaction] = {}
    touched: dict[str, int] = {}
    wrong: list[str] = []
    for line in lines:
        if "SET LOCAL can only be used in transaction blocks" in line.message:
            wrong.append(f"outside a transaction: {line.message}")
        if line.sql is None:
            continue
        now = sessions.setdefault(line.session, _Transaction())
        if now.number != line.transaction:
            now = sessions[line.session] = _Transaction(line.transaction)
        for statement in _split(line.sql):
            found = set(named.findall(_NOT_SQL.sub("''", statement)))
            trouble = _trouble(now, line) if found else None
            if trouble:
                wrong.append(f"{trouble}: {statement}")
            else:
                touched |= {table: touched.get(table, 0) + 1 for table in found}
            _follow(now, statement)
    return Verdict(touched, wrong)


def _trouble(now: _Transaction, line: Line) -> str | None:
    if not now.opened:
        return "no transaction"
    if not now.role:
        return "not as pulse_app"
    if now.tenant is None:
        return "no tenant"
    first = _FIRST_PARAMETER.search(line.detail)
    if first and first[1] != now.tenant:
        return f"asks for {first[1]} as {now.tenant}"
    return None


def _follow(now: _Transaction, statement: str) -> None:
    if re.match(r"BEGIN\b|START TRANSACTION\b", statement, re.IGNORECASE):
        now.opened = True
    elif re.match(r"(COMMIT|ROLLBACK|END|ABORT)\b(?! TO)", statement, re.IGNORECASE):
        now.opened = now.role = False
        now.tenant = None
    elif _ROLE.match(statement):
        now.role = now.opened
    elif tenant := _TENANT.match(statement):
        now.tenant = tenant[1].replace("''", "'") if now.opened else None
    elif _LEAVES.match(statement):
        now.role = False


def _split(sql: str) -> Iterator[str]:
    """The statements of one simple query. A semicolon in a string is no separator."""
    start = 0
    for found in re.finditer(r"'(?:[^']|'')*'|(;)", sql):
        if found[1]:
            yield sql[start : found.start()].strip()
            start = found.end()
    if sql[start:].strip():
        yield sql[start:].strip()
