"""Creates campaign rows, and finds the campaign of a repeated idempotency key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

from rollwave.domain.ids import CampaignId
from rollwave.domain.overview.overlaps import Overlap
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.errors import NotFound
from rollwave.store import campaign_rows
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("new_campaigns")


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """A campaign to create. Times are seconds. None: the engine's setting.

    ``abort_threshold`` is a share from 0 to 1, ``canary_percent`` a percentage, ``rollout_rate`` devices per tick.
    Under a policy document, the rules among them mean nothing.
    """

    name: str
    firmware_version_id: int
    target_group_id: str
    rollout_strategy: str = "linear"
    rollout_rate: int = 10
    abort_threshold: float = 0.1
    abort_min_completed: int = 1
    canary_percent: float = 5.0
    max_in_flight: int | None = None
    progress_timeout: float | None = None
    answer_timeout: float | None = None
    device_timeout: float | None = None
    max_attempts: int | None = None
    retry_on: list[str] | None = None
    retry_delay: float | None = None
    retry_delay_max: float | None = None

    def digest(self, policy: PolicyDocument | str | None = None) -> str:
        """SHA-256 of the values, in hex: equal for equal requests. ``policy``: a document, or the name of one."""
        values = asdict(self)
        if policy is not None:
            values["policy"] = policy if isinstance(policy, str) else to_data(policy)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class ChosenFirmware(NamedTuple):
    """The device type that a firmware version is for (None: every type), and its size in bytes (None: unknown)."""

    device_type: str | None
    size: int | None


async def chosen_firmware(connection: Connection, tenant_id: str, firmware_id: int) -> ChosenFirmware:
    """The firmware of a campaign to create.

    Raises:
        NotFound: this tenant has no such firmware.
    """
    row = await connection.fetchrow(_sql["chosen_firmware"], tenant_id, firmware_id)
    if row is None:
        raise NotFound(f"no firmware {firmware_id}", hint="List the firmware versions to see their ids.")
    return ChosenFirmware(row["device_type"], row["file_size_bytes"])


async def require_group(connection: Connection, tenant_id: str, group_id: str) -> None:
    """Check that the tenant has this device group.

    Raises:
        NotFound: this tenant has no such group.
    """
    if not await connection.fetchval(_sql["group_exists"], tenant_id, group_id):
        raise NotFound(f"no device group {group_id}", hint="Make it first: PUT /customer/device-groups/{group_id}.")


async def insert(
    connection: Connection, tenant_id: str, new: NewCampaign, *, created_by: str, policy_revision: int | None = None
) -> CampaignId:
    """Insert a campaign with status CREATED. Returns its id. The statement has its parameters in the fields' order.

    ``policy_revision``: the revision of the policy document that it follows; None: its flat columns.
    """
    values = (getattr(new, each.name) for each in fields(new))
    campaign_id: CampaignId = await connection.fetchval(_sql["insert"], tenant_id, *values, created_by, policy_revision)
    return campaign_id


MAX_MEMBERS_LOOKED_UP = 2000
"""Maximum number of members of a group that are looked up in other campaigns."""
MAX_OTHER_CAMPAIGNS = 20
"""Maximum number of unfinished campaigns in which they are looked up."""


async def overlaps(connection: Connection, tenant_id: str, group_id: str) -> list[Overlap]:
    """The three unfinished campaigns in which most devices of the group wait or are in progress."""
    rows = await connection.fetch(_sql["overlaps"], tenant_id, group_id, MAX_MEMBERS_LOOKED_UP, MAX_OTHER_CAMPAIGNS)
    return [
        Overlap(
            row["campaign_id"],
            row["name"],
            row["version"],
            campaign_rows.status(row["status"]),
            row["devices"],
            looked_at=row["looked_at"],
            all_looked_at=row["looked_at"] < MAX_MEMBERS_LOOKED_UP,
        )
        for row in rows
    ]


class EarlierRequest(NamedTuple):
    """The first request with an idempotency key: its campaign, and the SHA-256 of its values in hex.

    A key is kept as long as its campaign. It has its own table, so that a host's ``SELECT *`` does not show it.
    """

    campaign_id: CampaignId
    digest: str


async def earlier_request(connection: Connection, tenant_id: str, key: str) -> EarlierRequest | None:
    """The first request with this key. None: the key is unused."""
    row = await connection.fetchrow(_sql["earlier_request"], tenant_id, key)
    return EarlierRequest(row["campaign_id"], row["digest"]) if row else None


async def keep_key(connection: Connection, tenant_id: str, key: str, digest: str, campaign_id: CampaignId) -> None:
    """Store the key of a campaign that was just created. ``digest``: the SHA-256 of its values, in hex.

    If another request has used the key in between, PostgreSQL's error becomes Conflict in ``refusing``.
    """
    await connection.execute(_sql["forget_key"], tenant_id, key)
    await connection.execute(_sql["keep_key"], tenant_id, key, digest, campaign_id)
