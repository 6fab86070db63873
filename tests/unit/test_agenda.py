"""When campaigns are looked at."""

from __future__ import annotations

from math import inf

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine.worker.schedule import Schedule

ONE, TWO = (CampaignRef(TenantId("north"), CampaignId(number), CampaignStatus.RUNNING) for number in (1, 2))


def agenda(*due: CampaignRef) -> Schedule:
    """One on which everything has been looked at and wants to be again at 10."""
    agenda = Schedule()
    agenda.update(due)
    for each in due:
        agenda.begin(each)
        agenda.again(each, 10.0)
    return agenda


def test_a_new_campaign_is_looked_at_immediately() -> None:
    known = agenda(ONE)
    known.update([ONE, TWO])
    assert known.ripe(now=0.0) == [TWO]


def test_a_known_campaign_waits_for_its_time() -> None:
    known = agenda(ONE, TWO)
    known.begin(TWO)
    known.again(TWO, 5.0)
    assert known.soonest == 5.0
    assert known.ripe(now=4.9) == []
    assert known.ripe(now=5.0) == [TWO]
    assert known.ripe(now=10.0) == [ONE]
    assert known.ripe(now=10.0) == []


def test_a_campaign_that_changed_during_its_look_is_looked_at_again() -> None:
    known = agenda(ONE)
    known.begin(ONE)
    aborted = CampaignRef(ONE.tenant_id, ONE.campaign_id, CampaignStatus.ABORTED)
    known.update([aborted])
    assert (known.ripe(now=99.0), known.soonest) == ([], inf), "nobody is to come back for it before that"
    known.again(ONE, 20.0)
    assert known.ripe(now=0.0) == [aborted]


def test_a_campaign_that_is_not_due_any_more_is_forgotten() -> None:
    known = agenda(ONE)
    known.update([])
    known.again(ONE, 5.0)
    assert (known.ripe(now=99.0), known.all()) == ([], [])
