"""Asks whether commands of a campaign may be sent now. Asked before every half-batch, and while one takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from rollwave.domain.policy.admission import Admission, admit
from rollwave.engine.closed_segments import closed_among
from rollwave.engine.locked_campaign import CampaignUnderPolicy, under_policy
from rollwave.settings import Settings
from rollwave.store import campaigns
from rollwave.store.database import Connection
from rollwave.store.outage import is_outage

T = TypeVar("T")

ASK_AGAIN_SECONDS = 0.25
"""Seconds between two questions whether commands that are on their way must be stopped."""


async def admission_of(connection: Connection, settings: Settings, tenant_id: str, campaign_id: int) -> Admission:
    """What the gates say about every command of a campaign.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    admission, _ = await _read(connection, settings, tenant_id, campaign_id)
    return admission


async def closed_to(
    connection: Connection,
    settings: Settings,
    tenant_id: str,
    campaign_id: int,
    segments: Collection[int],
    *,
    revision: int | None,
) -> Collection[int] | None:
    """Those of these ``segments`` of a campaign whose devices may not be sent to now; None: no device of it may.

    ``revision``: that of the policy document in force when the segments of the devices were read. After an edit, the
    devices may be in other segments, so none of them may be sent to.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    admission, campaign = await _read(connection, settings, tenant_id, campaign_id)
    if not admission.sends or campaign.row.policy_revision != revision:
        return None
    return await closed_among(connection, campaign, segments)


async def _read(
    connection: Connection, settings: Settings, tenant_id: str, campaign_id: int
) -> tuple[Admission, CampaignUnderPolicy]:
    row = await campaigns.get(connection, tenant_id, campaign_id)
    campaign = under_policy(row, settings)
    heard = row.heard(settings.listener_slots)
    return admit(campaign.policy, campaign.facts(settings, heard=heard)), campaign


async def unless_stopped(
    sending: Awaitable[T], stopped: Callable[[], Awaitable[bool]], abandon: Callable[[], None]
) -> T:
    """Await ``sending``. If it takes long, ask whether it is ``stopped``; then ``abandon`` it, after which it must end.

    Commands wait in the session's queue while the broker takes them slowly, and a halt must not wait for them. An
    outage of the database answers nothing: an operator cannot halt during one either.
    """
    task = asyncio.ensure_future(sending)
    try:
        while not (await asyncio.wait({task}, timeout=ASK_AGAIN_SECONDS))[0]:
            if await _is(stopped):
                abandon()
                break
        return await task
    finally:
        task.cancel()


async def _is(stopped: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await stopped()
    except Exception as error:
        if not is_outage(error):
            raise
    return False
