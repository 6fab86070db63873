"""When a worker looks at each campaign."""

from __future__ import annotations

from math import inf

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine.worker.tick import Schedule

ONE, TWO = (CampaignRef(TenantId("north"), CampaignId(number), CampaignStatus.RUNNING) for number in (1, 2))


def schedule(*due: CampaignRef) -> Schedule:
    """A schedule whose campaigns have been looked at, and are due again at 10."""
    schedule = Schedule()
    schedule.update(due)
    for each in due:
        schedule.begin(each)
        schedule.again(each, 10.0)
    return schedule


def test_a_new_campaign_is_looked_at_immediately() -> None:
    known = schedule(ONE)
    known.update([ONE, TWO])
    assert known.ready(now=0.0) == [TWO]


def test_a_known_campaign_waits_for_its_time() -> None:
    known = schedule(ONE, TWO)
    known.begin(TWO)
    known.again(TWO, 5.0)
    assert known.next_at == 5.0
    assert known.ready(now=4.9) == []
    assert known.ready(now=5.0) == [TWO]
    assert known.ready(now=10.0) == [ONE]
    assert known.ready(now=10.0) == []


def test_a_campaign_that_changed_during_its_look_is_looked_at_again() -> None:
    known = schedule(ONE)
    known.begin(ONE)
    aborted = CampaignRef(ONE.tenant_id, ONE.campaign_id, CampaignStatus.ABORTED)
    known.update([aborted])
    assert (known.ready(now=99.0), known.next_at) == ([], inf), "not before the first look has ended"
    known.again(ONE, 20.0)
    assert known.ready(now=0.0) == [aborted]


def test_a_campaign_that_is_not_due_any_more_is_forgotten() -> None:
    known = schedule(ONE)
    known.update([])
    known.again(ONE, 5.0)
    assert (known.ready(now=99.0), known.all()) == ([], [])


def test_a_tenant_whose_brakes_changed_is_looked_at_immediately() -> None:
    south = CampaignRef(TenantId("south"), CampaignId(3), CampaignStatus.RUNNING)
    known = schedule(ONE, TWO, south)
    known.begin(TWO)
    known.look_soon("north")
    assert known.ready(now=0.0) == [ONE]
    known.again(TWO, 10.0)
    assert known.ready(now=0.0) == [TWO], "when the work on it has ended"
    assert known.ready(now=10.0) == [south]
