"""Deadlocks in the logs of every PostgreSQL server that tests start in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rollwave.embedded.postgres import EmbeddedPostgres

_meant: set[str] = set()


def expected_in(database: str) -> None:
    """Deadlocks in this database (its URL) are provoked by a test."""
    _meant.add(f" {database.partition('@/')[2].partition('?')[0]} ")


def unexpected_deadlocks(server: EmbeddedPostgres) -> list[str]:
    """Lines about deadlocks in the server's log, without those that tests provoked."""
    logs = [server.log, *server.data_dir.glob("log/*")]
    lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
    return [line for line in lines if "deadlock detected" in line and not any(name in line for name in _meant)]


@contextmanager
def watching_servers() -> Iterator[list[str]]:
    """Read each server's log when the server stops, during the block. Yields the deadlocks found."""
    found: list[str] = []
    leave = EmbeddedPostgres.__exit__

    def look_and_leave(server: EmbeddedPostgres, *how: Any) -> None:
        found.extend(unexpected_deadlocks(server))
        leave(server, *how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddedPostgres, "__exit__", look_and_leave)
        yield found
