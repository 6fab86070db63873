"""Refuses a policy document whose selectors take too long for the devices of a campaign."""

from __future__ import annotations

import math
from contextlib import nullcontext

import asyncpg

from rollwave.domain.policy.placing import Placing
from rollwave.errors import InvalidInput
from rollwave.store import labels
from rollwave.store.database import Connection
from rollwave.store.placing_statements import Parts, Source
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

SECONDS_PER_MILLION_DEVICES = 5.0
"""Maximum time in which all selectors of a document are compared with a million devices, or with fewer."""


async def refuse(connection: Connection, source: Source, placing: Placing) -> None:
    """Compare the selectors of all waves with all devices that would be placed, within the time limit.

    Needs a transaction whose statements may take ``SCAN_TIMEOUT_SECONDS``.

    Raises:
        InvalidInput: they take longer. The transaction cannot continue.
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    if all(each is None for each in placing.selects):
        return
    parts = Parts(placing, source, first_parameter=5)
    arguments = source.tenant_id, source.campaign_id, source.group_id, source.device_type
    devices: int = await connection.fetchval(parts.fill("number"), *arguments, timeout=SCAN_TIMEOUT_SECONDS)
    seconds = SECONDS_PER_MILLION_DEVICES * max(1, math.ceil(devices / 1_000_000))
    await connection.execute(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
    async with labels.reading_view() if source.labels.of_host else nullcontext():
        try:
            await connection.fetchrow(
                parts.fill("matches"), *arguments, *parts.parameters, timeout=SCAN_TIMEOUT_SECONDS
            )
        except asyncpg.QueryCanceledError as error:
            raise InvalidInput(
                f"the selectors of the waves are too broad: to compare them with {devices:,} devices takes more than "
                f"{seconds:g} seconds",
                hint="Use fewer comparisons, and patterns that begin with text.",
                field="policy",
            ) from error
    await connection.execute(f"SET LOCAL statement_timeout = {int(SCAN_TIMEOUT_SECONDS * 1000)}")
