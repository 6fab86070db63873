"""The waves of a campaign."""

from __future__ import annotations

from collections.abc import Sequence

from rollwave.domain.policy.waves import Wave
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("waves")


async def insert(connection: Connection, campaign: Campaign, waves: Sequence[Wave]) -> None:
    """Write down the plan. Waves that are there already stay as they are."""
    numbers = [wave.number for wave in waves]
    shares = [wave.up_to for wave in waves]
    await connection.execute(_sql["insert"], campaign.tenant_id, campaign.id, numbers, shares)


async def pass_gate(connection: Connection, campaign: Campaign, number: int) -> None:
    """Date the gate behind wave ``number`` and the opening of the next one."""
    await connection.execute(_sql["pass_gate"], campaign.tenant_id, campaign.id, number)


async def open_wave(connection: Connection, campaign: Campaign, number: int) -> bool:
    """Go on to wave ``number``. False: another worker did."""
    return await connection.fetchval(_sql["open_wave"], campaign.tenant_id, campaign.id, number) is not None
