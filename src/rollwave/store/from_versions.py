"""The versions that devices of a campaign ran when it was first sent: read once from a sample, and stored."""

from __future__ import annotations

import json

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.overview.from_versions import most_common
from rollwave.store import device_labels
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("from_versions")

MAX_SCANNED, MAX_SAMPLE = 2000, 500
"""Maximum number of devices among which the sample is chosen, and of devices in it."""


async def note(connection: Connection, ref: CampaignRef) -> None:
    """Store the versions of a sample of the campaign's devices. Not applied: they are stored, or it is being targeted.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    rows = await connection.fetch(_sql["sample"], ref.tenant_id, ref.campaign_id, MAX_SCANNED, MAX_SAMPLE)
    if not rows:
        return
    found = await device_labels.read(connection, ref.tenant_id, [row["device_id"] for row in rows])
    stored = {"devices": len(rows), "versions": most_common(each.version for each in found.values())}
    await connection.execute(_sql["write"], ref.tenant_id, ref.campaign_id, json.dumps(stored, ensure_ascii=False))
