"""What an action on a campaign needs to know of it. An action never reads the overview: brakes work without it."""

from __future__ import annotations

from rollwave.domain.overview.actions import actions
from rollwave.domain.overview.how_far import HowFar
from rollwave.errors import NotFound
from rollwave.log import get_logger
from rollwave.store import views
from rollwave.store.campaign_rows import status
from rollwave.store.database import Pool
from rollwave.store.moments import Document

_log = get_logger("console")


async def read(pool: Pool, tenant_id: str, campaign_id: int) -> Document | None:
    """The part of the overview that the questions and answers are made of, with the names of ``waves``.

    None: it cannot be read, or the devices are not counted yet. Then a question has no numbers, and an answer says
    only what was done.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    try:
        row = await views.brief(pool, tenant_id, campaign_id)
    except NotFound:
        raise
    except Exception:  # noqa: BLE001  the action itself says whether the database is unavailable
        _log.warning("console_brief_not_read", campaign_id=campaign_id, exc_info=True)
        return None
    if row["status_breakdown"] is None:
        return None
    devices = HowFar.read(row["status_breakdown"])
    return {
        "campaign_id": campaign_id,
        "name": row["name"],
        "status": row["status"],
        "version": row["firmware_version"],
        "devices": devices.to_json(),
        "actions": actions(status(row["status"]), devices, cancelled=row["cancelled"]),
        "waves": row["waves"],
    }
