"""Why devices of a campaign fail: its last failures, grouped by what they have in common."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rollwave.domain.overview.causes import By, Cause, best_label, group, sampled_text
from rollwave.store import causes, views
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.labels import LabelsUnavailable

MAX_READ = 5000
"""Maximum number of failures that are grouped: the last ones."""

MAX_SAMPLE = 2000
"""Maximum number of succeeded devices, and of failed ones, whose labels are compared to choose the label."""

TOP = 5
TOP_READ = 1000
"""Maximum number of failures that the causes on a campaign's page are of: it is drawn often."""

KEEP_SECONDS = 60.0
"""Seconds for which causes are kept while no device fails: labels, and which devices succeeded, change slowly."""

_SHARE_OF_TIME = 0.05
_MAX_KEPT = 1000
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Causes:
    """The causes of failures, those with most devices first.

    Attributes:
        failed: number of failed devices, at most ``causes.MAX_SCANNED``.
        read: number of the last failures that ``found`` is of.
        by: what they are grouped by. ``by.label`` is the label that was chosen, if one was to be chosen.
        text: what share of the failures they are of; empty: of all.
    """

    failed: int
    read: int
    by: By
    found: Sequence[Cause]
    text: str


async def of(pool: Pool, tenant_id: str, campaign_id: int, by: By) -> Causes:
    """The causes of a campaign's failures.

    Raises:
        NotFound: this tenant has no such campaign.
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    async with tenant_transaction(pool, tenant_id, timeout=_SECONDS) as connection:
        await views.require(connection, tenant_id, campaign_id)
        return await read(connection, tenant_id, campaign_id, by, limit=MAX_READ)


async def read(
    connection: Connection, tenant_id: str, campaign_id: int, by: By, *, limit: int, of_policy: str | None = None
) -> Causes:
    """The causes of a campaign's last ``limit`` failures, read in the caller's transaction.

    ``of_policy``: the label by which a guardrail of the campaign parts the devices. It is taken if none is the best.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    failures = await causes.failures(connection, tenant_id, campaign_id, limit=limit)
    if by.best_label and failures.last:
        size = min(limit, MAX_SAMPLE)
        succeeded = await causes.labels_of_succeeded(connection, tenant_id, campaign_id, limit=size)
        best = best_label([each.labels for each in failures.last[:size]], succeeded)
        known = any(of_policy in each.labels for each in failures.last)
        by = replace(by, label=best or (of_policy if known else None))
    read = len(failures.last)
    return Causes(failures.failed, read, by, group(failures.last, by), sampled_text(read, failures.failed))


class _Kept(NamedTuple):
    causes: Causes
    failed: int
    read_at: float
    took: float

    def holds(self, failed: int) -> bool:
        age = time.monotonic() - self.read_at
        return age <= (KEEP_SECONDS if failed == self.failed else self.took / _SHARE_OF_TIME)


class TopCauses:
    """The first causes of campaigns, for their pages. Kept, because a page is drawn several times a second."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()

    async def read(
        self,
        connection: Connection,
        tenant_id: str,
        campaign_id: int,
        *,
        failed: int,
        of_policy: str | None = None,
    ) -> Sequence[Cause]:
        """The ``TOP`` causes of the last ``TOP_READ`` failures. ``failed``: the campaign's counter of failed devices.

        ``of_policy``: as :func:`read` takes it.

        While devices fail, they are at most 20 times as old as reading them took. If the host's view of its devices
        cannot be used, failures are grouped by code alone.
        """
        if failed <= 0:
            return ()
        key = tenant_id, campaign_id
        kept = self._kept.get(key)
        if kept is None or not kept.holds(failed):
            began = time.monotonic()
            found = await top(connection, tenant_id, campaign_id, of_policy)
            now = time.monotonic()
            kept = self._kept[key] = _Kept(found, failed, now, now - began)
            self._kept.move_to_end(key)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return kept.causes.found[:TOP]


async def top(connection: Connection, tenant_id: str, campaign_id: int, of_policy: str | None = None) -> Causes:
    """The causes of the last ``TOP_READ`` failures; by code alone if the host's view of its devices cannot be used."""
    await connection.execute("SAVEPOINT rollwave_causes")  # an error in the host's view would end the transaction
    try:
        found = await read(connection, tenant_id, campaign_id, By(), limit=TOP_READ, of_policy=of_policy)
    except LabelsUnavailable:
        await connection.execute("ROLLBACK TO SAVEPOINT rollwave_causes")
        failures = await causes.failures(connection, tenant_id, campaign_id, limit=TOP_READ, with_labels=False)
        by = By(code=True, label=None, best_label=False, version=False)
        return Causes(failures.failed, len(failures.last), by, group(failures.last, by), "")
    await connection.execute("RELEASE SAVEPOINT rollwave_causes")
    return found
