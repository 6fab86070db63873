"""The waves of a campaign, as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy.rules import Wave, wave_name
from rollwave.domain.policy.words import WaveState
from rollwave.store.moments import Document


def flat_waves(campaign: Document, waves: Sequence[Document]) -> list[Document]:
    """The waves of a campaign with flat columns, shown as those of a policy document.

    Devices are counted for the campaign as a whole, so what each wave had is known only if there is one.
    """
    plan = [Wave(each["number"], each["up_to"]) for each in waves]
    before, shown = 0, []
    for wave, each in zip(plan, waves, strict=True):
        size = max(0, (campaign["total_devices"] if wave.up_to is None else wave.up_to) - before)
        passed = each["passed_at"] is not None or campaign["status"] == CampaignStatus.COMPLETED
        is_open = wave.number == campaign["wave"]
        state = WaveState.PASSED if passed else WaveState.OPEN if is_open else WaveState.WAITING
        counts = {
            "name": wave_name(wave.number, plan),
            "size": size,
            "sent": min(size, max(0, campaign["sent"] - before)),
            "succeeded": campaign["succeeded"] if len(plan) == 1 else None,
            "failed": campaign["failed"] if len(plan) == 1 else None,
            "state": state.value,
            "since": each["passed_at"] if passed else each["opened_at"],
        }
        shown.append({**each, **counts})
        before += size
    return shown


def known(wave: Document) -> Document:
    """What a wave must have, where other SQL has removed it."""
    return {
        "name": wave["name"] or f"wave {wave['number'] + 1}",
        "state": wave["state"] or WaveState.WAITING.value,
        **{name: wave[name] or 0 for name in ("size", "sent")},
    }
