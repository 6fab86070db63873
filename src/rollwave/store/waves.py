"""Waves of campaigns under a policy document: their rows, and the state of their gates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.waves import GateDecision, Soak
from rollwave.domain.policy.words import WaveState
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.moments import moment
from rollwave.store.queries import load

_sql = load("waves")


@dataclass(frozen=True, slots=True)
class WaveRow:
    """A wave as it is stored.

    ``matched``: number of devices that its selector fits (None: it has none). ``size``: devices placed in it (None: not
    placed yet). ``state`` is that of the last look, since ``since``. ``promoted_by``: the id of the API key that opened
    its gate.
    """

    number: int
    name: str
    size: int | None
    matched: int | None
    state: WaveState
    since: datetime | None
    soak: Soak | None
    promoted_by: str | None

    @property
    def matches_nothing(self) -> bool:
        """Whether its selector fits no device, which pauses the campaign until an operator promotes it."""
        return self.matched == 0 and self.promoted_by is None


def of(campaign: Campaign) -> list[WaveRow]:
    """The waves of a campaign under a policy document, in their order, as its row was read with them.

    Empty: its devices are not placed yet.
    """
    rows = json.loads(campaign.document_waves) if campaign.document_waves else ()
    return [
        WaveRow(
            number,
            name,
            size,
            matched,
            WaveState(state),
            None if since is None else moment(float(since)),  # infinity is a JSON string
            None if soak_from is None else Soak(moment(float(soak_from)), soak_failed),
            promoted_by,
        )
        for number, name, size, matched, state, since, soak_from, soak_failed, promoted_by in rows
    ]


async def write(
    connection: Connection,
    tenant_id: str,
    campaign_id: CampaignId,
    *,
    names: Sequence[str],
    matched: Sequence[int | None],
) -> None:
    """Write the waves of the document in force, with the sizes that their cells have. Needs the campaign's lock.

    Waves of an earlier revision keep their state as long as their number stays; those beyond are removed.
    """
    await connection.execute(_sql["write"], tenant_id, campaign_id, names, matched)
    await connection.execute(_sql["remove"], tenant_id, campaign_id, len(names))


async def grow(connection: Connection, campaign: Campaign) -> None:
    """Write the sizes that the cells have, after devices were added to waves. Needs the campaign's lock."""
    await connection.execute(_sql["grow"], campaign.tenant_id, campaign.id)


async def note(connection: Connection, campaign: Campaign, number: int, decision: GateDecision) -> None:
    """Store what the gate of the wave ``number`` says. Needs the campaign's lock."""
    soak = decision.soak
    await connection.execute(
        _sql["note"],
        *(campaign.tenant_id, campaign.id, number, decision.state.value),
        *((soak.since.timestamp(), soak.failed) if soak else (None, None)),
    )


async def retried(connection: Connection, campaign: Campaign, devices: int) -> None:
    """Let the soak of the present wave go on, though ``devices`` failed ones of the waves so far get another attempt.

    So a device that fails before the next look begins the soak again. Needs the campaign's lock.
    """
    if devices:
        await connection.execute(_sql["retried"], campaign.tenant_id, campaign.id, campaign.wave, devices)


async def promote(connection: Connection, campaign: Campaign, number: int, *, by: str) -> None:
    """Record who opened the gate of the wave ``number``. Needs the campaign's lock."""
    await connection.execute(_sql["promote"], campaign.tenant_id, campaign.id, number, by)


async def open_next(connection: Connection, campaign: Campaign, number: int) -> bool:
    """Mark the wave ``number`` as passed and the next one as open. False: another worker did so first."""
    return await connection.fetchval(_sql["open_next"], campaign.tenant_id, campaign.id, number) is not None
