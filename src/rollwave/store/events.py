"""What happened to a campaign, written in the transaction that made it happen.

An event gets its id while the campaign's row is locked, so the events of one campaign are committed in the order of
their ids: a reader that asks for what comes after the last id it saw misses none (ADR 23).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollwave.store.database import Connection
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("events")

ENGINE = "engine"
"""The actor of everything that nobody asked for."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt of one device that ended in failure.

    ``reason`` is ``domain.retry.Reason``'s word, ``message`` is for people, ``actor`` is who said so: the device or
    the engine. ``final``: no other attempt follows. ``given_up``: its failure is in history already, and the attempt
    that was to follow is not made after all.
    """

    campaign_id: int
    device_id: str
    attempt: int
    reason: str
    message: str
    actor: str
    final: bool
    given_up: bool = False


async def append(
    connection: Connection,
    tenant_id: str,
    campaign_id: int,
    event: str,
    *,
    actor: str,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write one event; locks the campaign's row. ``detail`` must be JSON; what is None in it is left out."""
    body = json.dumps({key: value for key, value in (detail or {}).items() if value is not None})
    await connection.execute(_sql["append"], tenant_id, campaign_id, event, actor, body)


async def append_failed_attempts(connection: Connection, tenant_id: str, failures: Sequence[FailedAttempt]) -> None:
    """Write one event for each failed attempt, or for what is given up after one.

    Locks the rows of the campaigns. A transaction that locks campaigns besides locks them all before this, by id.

    Raises:
        ValueRefused: PostgreSQL does not take a value that a device sent.
    """
    if not failures:
        return
    columns = (
        [each.campaign_id for each in failures],
        [each.device_id for each in failures],
        [each.attempt for each in failures],
        [each.reason for each in failures],
        [each.message for each in failures],
        [each.actor for each in failures],
        [each.final for each in failures],
        [each.given_up for each in failures],
    )
    with refusing_values():
        await connection.execute(_sql["append_failed_attempts"], tenant_id, *columns)
