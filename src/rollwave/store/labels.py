"""The labels of devices: from the registry, or from a host's view, and what devices report about themselves.

A selector, a segment and an order by label are SQL over a row of labels (``store/selector_sql.py``). A :class:`Source`
gives these rows for a batch of devices, as a relation of the statement that targets them:

    source = await labels.source(connection)
    chosen = compile_selector(selector, first_parameter=4)
    f"SELECT l.device_id, {chosen.sql} FROM {source.of_ids('$1', '$3')} AS l"

Statements that use a host's view also return what :func:`require_right` checks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.policy.windows import zone_of
from rollwave.errors import RollwaveError
from rollwave.store.database import Connection
from rollwave.store.outage import is_away, refusing_values
from rollwave.store.queries import load

_sql = load("labels")

VIEW = "rollwave_devices"
"""The view in which a host that keeps its devices elsewhere shows them."""

FRESH_SECONDS = 3600.0
"""Seconds for which the stored time of a device's last report is good enough."""


class LabelsUnavailable(RollwaveError):
    """The host's view of its devices cannot be used. The message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the labels come from. ``of_host``: a host's view; otherwise the registry.

    A relation has the columns ``device_id``, ``device_type``, ``version``, ``version_key``, ``time_zone``,
    ``last_seen`` and ``labels`` (the attributes, as jsonb). ``version_key`` is in the order of versions by its bytes.
    """

    of_host: bool

    def of_ids(self, tenant: str, ids: str) -> str:
        """The labels of these devices, a row for each, also for those that nobody registered.

        ``tenant`` and ``ids`` are references to parameters such as ``$1``: text, and an array of text.
        """
        return f"{'rollwave_host_labels_of' if self.of_host else 'rollwave_labels_of'}({tenant}::text, {ids}::text[])"

    def of_all(self, tenant: str) -> str:
        """The labels of all devices of the tenant."""
        return f"rollwave_host_labels({tenant}::text, NULL)" if self.of_host else f"rollwave_labels({tenant}::text)"


@dataclass(frozen=True, slots=True)
class HostView:
    """A host's view.

    ``taken``: the schema's owner owns it, so it is used. ``invoker``: row-level security holds in it.
    """

    taken: bool
    invoker: bool
    owner: str


async def host_view(connection: Connection) -> HostView | None:
    """The view ``rollwave_devices`` in this schema; None: there is none."""
    row = await connection.fetchrow(_sql["view"])
    return HostView(**row) if row is not None else None


async def source(connection: Connection) -> Source:
    """Where the labels come from now."""
    view = await host_view(connection)
    return Source(of_host=view is not None and view.taken)


def require_right(twice: str | None, zones: Iterable[str]) -> None:
    """Check what a host's view has of devices: one that it has ``twice`` (None: none), and their time ``zones``.

    Raises:
        LabelsUnavailable: it has a device twice or an unknown time zone.
    """
    if twice is not None:
        raise LabelsUnavailable(f"the host's view {VIEW} has the device {twice} twice")
    for zone in zones:
        if zone_of(zone) is None:
            raise LabelsUnavailable(f"the host's view {VIEW} has the time zone {zone!r}, which is unknown")


async def try_view(connection: Connection) -> None:
    """Read the host's view without rows.

    Raises:
        LabelsUnavailable: it cannot be read, or lacks a column.
    """
    async with reading_view():
        await connection.fetchval(_sql["try_view"])


@asynccontextmanager
async def reading_view() -> AsyncIterator[None]:
    """Convert PostgreSQL's errors about the host's view, for statements that read it.

    Raises:
        LabelsUnavailable: the view cannot be read, or took too long. An outage stays what it is.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        if is_away(error):
            raise
        reason = "took too long" if isinstance(error, asyncpg.QueryCanceledError) else f"cannot be read: {error}"
        raise LabelsUnavailable(f"the host's view {VIEW} {reason}") from error


class Seen(NamedTuple):
    """A device has reported. ``version``: what it said that it runs; None: it did not say."""

    device_id: DeviceId
    version: str | None = None


class SeenOfTenant(NamedTuple):
    """A device that has reported, and its tenant."""

    tenant_id: TenantId
    seen: Seen


async def record(connection: Connection, tenant_id: str, seen: Iterable[Seen]) -> None:
    """Store what devices reported about themselves. Each device at most once; after the executions, before campaigns.

    Raises:
        ValueRefused: PostgreSQL refuses a version.
    """
    rows = [*seen]
    columns = [each.device_id for each in rows], [each.version for each in rows]
    with refusing_values():
        await connection.execute(_sql["record"], tenant_id, *columns, FRESH_SECONDS)


async def record_of_many_tenants(connection: Connection, seen: Iterable[SeenOfTenant]) -> None:
    """As :func:`record`, for devices of many tenants, in a transaction without a tenant.

    Raises:
        ValueRefused: PostgreSQL refuses a version.
    """
    rows = [*seen]
    with refusing_values():
        await connection.execute(
            _sql["record_of_many_tenants"],
            [tenant_id for tenant_id, _ in rows],
            [each.device_id for _, each in rows],
            [each.version for _, each in rows],
            FRESH_SECONDS,
        )


class Unstored(NamedTuple):
    """An ended campaign whose executions say more about its devices than what is stored.

    ``after``: the last device that is stored; empty: none is. ``ended``: number of devices that have ended.
    """

    after: str
    ended: int


async def unstored(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> Unstored | None:
    """Whether there is something to store. None: there is nothing, or the campaign's devices may still report."""
    row = await connection.fetchrow(_sql["unstored"], tenant_id, campaign_id)
    return None if row is None else Unstored(*row)


async def store(
    connection: Connection, tenant_id: str, campaign_id: CampaignId, unstored: Unstored, *, limit: int
) -> bool:
    """Store what the executions of the next ``limit`` devices say. Until then it is read from the executions.

    Returns whether these were the last ones. False also if a device has ended meanwhile, so that its part is stored
    once more.
    """
    key = tenant_id, campaign_id, unstored.after
    row = await connection.fetchrow(_sql["store"], *key, limit)
    assert row is not None  # an aggregate has one row
    last = row["devices"] < limit
    up_to = None if last else row["up_to"]
    return await connection.fetchval(_sql["note_stored"], *key, up_to, unstored.ended) is not None and last
