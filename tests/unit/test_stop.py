"""The log event of a stopped campaign, also for handlers that print no fields."""

from __future__ import annotations

import logging

import pytest

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.ids import CampaignId
from rollwave.engine.stop import Stopped
from rollwave.store.campaign_rows import CampaignCounters


@pytest.mark.parametrize("to", [CampaignStatus.PAUSED, CampaignStatus.ABORTED])
def test_a_plain_log_format_shows_the_campaign_and_the_reason(
    to: CampaignStatus, caplog: pytest.LogCaptureFixture
) -> None:
    counters = CampaignCounters(CampaignId(7), CampaignStatus.RUNNING, 1, 9, 10, 0.5, 1)
    with caplog.at_level(logging.WARNING, logger="rollwave"):
        Stopped("north", counters, to, "rollout_rate 0 sends nothing").announce()
    [record] = caplog.records
    printed = logging.Formatter("%(levelname)s %(message)s").format(record)
    assert "campaign 7" in printed
    assert "rollout_rate 0 sends nothing" in printed
    assert "Traceback" not in printed
    assert (vars(record)["campaign_id"], vars(record)["tenant_id"]) == (7, "north")
    assert vars(record)["reason"] == "rollout_rate 0 sends nothing"


def test_a_pause_has_the_hint_of_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    counters = CampaignCounters(CampaignId(7), CampaignStatus.RUNNING, 1, 9, 10, 0.5, 1)
    with caplog.at_level(logging.WARNING, logger="rollwave"):
        Stopped("north", counters, CampaignStatus.PAUSED, "the gate failed", hint="Promote the wave.").announce()
    assert vars(caplog.records[0])["hint"] == "Promote the wave."
