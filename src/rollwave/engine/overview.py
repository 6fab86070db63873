"""What operators need to see of campaigns: the verdict, and the whole of one campaign, read in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview import waves as waves_of
from rollwave.domain.overview.actions import actions
from rollwave.domain.overview.at_start import at_start
from rollwave.domain.overview.brakes import StoppedBy
from rollwave.domain.overview.facts import OverviewFacts
from rollwave.domain.overview.forecast import Forecast
from rollwave.domain.overview.from_versions import from_versions
from rollwave.domain.overview.guardrails import GuardrailStanding, most_used_first, with_reason
from rollwave.domain.overview.headline import headline
from rollwave.domain.overview.how_far import HowFar
from rollwave.domain.overview.rules_line import rules_line
from rollwave.domain.overview.segments import SegmentStanding, worst_first
from rollwave.domain.overview.waves import WaveStanding
from rollwave.domain.policy import flat
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.words import Scope, WaveState
from rollwave.engine import explain, timeline
from rollwave.engine.causes import TopCauses
from rollwave.engine.explain import WaitingDevices
from rollwave.engine.locked_campaign import CampaignUnderPolicy, under_policy
from rollwave.settings import Settings
from rollwave.store import campaigns as campaign_table
from rollwave.store import overview as store
from rollwave.store import views
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document
from rollwave.store.overview import CampaignFacts
from rollwave.store.page import Page

EVENTS_SHOWN = 20
"""Number of the last events in the overview."""

MOST_CLAIMED_READ = 1000
"""Maximum number of claimed devices that the overview looks at for what they wait for: it is read every second."""


async def campaigns(
    pool: Pool,
    settings: Settings,
    tenant_id: str,
    *,
    status: CampaignStatus | None,
    limit: int,
    cursor: int | None = None,
) -> Page:
    """A page of campaigns with their verdicts, newest first. ``status`` None: campaigns in every state.

    Reads counters and small tables, in a number of statements that does not depend on the number of campaigns.
    """
    async with tenant_transaction(pool, tenant_id, snapshot=True) as connection:
        found = await views.campaigns(connection, tenant_id, status=status, limit=limit, cursor=cursor)
        ids = [row["id"] for row in found.rows]
        facts = await store.facts(
            connection, tenant_id, ids, progress_timeout=settings.progress_timeout, ended_in_short=True
        )
        ahead = await timeline.forecasts(connection, tenant_id, facts)
    rows = [
        row | _in_list(facts[row["id"]], settings) | {"forecast": _forecast(ahead.get(row["id"]))} for row in found.rows
    ]
    return replace(found, rows=rows)


async def campaign(pool: Pool, settings: Settings, tenant_id: str, campaign_id: int) -> Document:
    """One campaign as ``GET …/campaigns/{id}`` shows it, with its verdict.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id, snapshot=True) as connection:
        shown, facts = await _read(connection, settings, tenant_id, campaign_id)
    verdict = headline(overview_facts(facts, settings)).to_json()
    return shown | {"guardrails": facts.guardrails, "headline": verdict}


async def overview(
    pool: Pool, settings: Settings, tenant_id: str, campaign_id: int, causes: TopCauses | None = None
) -> Document:
    """All that the page of one campaign shows, in one transaction.

    Costs about the same for ten devices as for a million: numbers come from counters. ``causes`` keeps the causes of
    failures for the next call; None: they are read.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id, queues=True, snapshot=True) as connection:
        shown, facts = await _read(connection, settings, tenant_id, campaign_id)
        row = under_policy(await campaign_table.get(connection, tenant_id, campaign_id), settings)
        waiting = await explain.count_devices(connection, row, settings, shown=shown, most=MOST_CLAIMED_READ)
        events = await views.latest_events(connection, tenant_id, campaign_id, limit=EVENTS_SHOWN)
        failed = shown["status_breakdown"]["FAILED"]
        top = await (causes or TopCauses()).read(
            connection, tenant_id, campaign_id, failed=failed, of_policy=_label_of_policy(row)
        )
        ahead = await timeline.outlook(connection, row.row, settings)
    more = {
        "rules": _rules(row, settings),
        "causes": [each.to_json() for each in top],
        "at_start": _at_start(row, facts, settings),
    }
    return _document(shown, overview_facts(facts, settings), waiting, events) | ahead.to_json() | more


def _at_start(campaign: CampaignUnderPolicy, found: CampaignFacts, settings: Settings) -> Document | None:
    """What starting a campaign does now. None: it was started."""
    if found.status is not CampaignStatus.CREATED:
        return None
    sizes = [each["size"] for each in found.waves if each.get("size") is not None]
    first = sizes[0] if sizes else campaign.wave.up_to
    if first is None and len(campaign.waves) == 1:
        first = found.row["total_devices"]
    facts = campaign.facts(settings, heard=campaign.row.heard(settings.listener_slots))
    return asdict(at_start(campaign.policy, facts, first))


def _label_of_policy(campaign: CampaignUnderPolicy) -> str | None:
    """The first label by which a guardrail parts the devices. None: none does."""
    document = campaign.row.document
    rules = () if document is None else document.guardrails or ()
    return next((key for rule in rules if rule.scope is Scope.SEGMENT for key in rule.per or ()), None)


def _rules(campaign: CampaignUnderPolicy, settings: Settings) -> str:
    """The rules in one line; empty: they cannot be read."""
    if campaign.unreadable is not None:
        return ""
    document = campaign.row.document
    return rules_line(
        flat.as_document(campaign.policy, tick=settings.tick_interval) if document is None else to_data(document)
    )


async def _read(
    connection: Connection, settings: Settings, tenant_id: str, campaign_id: int
) -> tuple[Document, CampaignFacts]:
    shown = await views.campaign(connection, tenant_id, campaign_id)
    found = await store.facts(
        connection, tenant_id, [campaign_id], progress_timeout=settings.progress_timeout, ended_in_short=False
    )
    if campaign_id not in found:  # deleted meanwhile
        raise campaign_table.missing(campaign_id)
    counted = {each["number"]: each for each in shown["waves"]}
    waves = [each | counted.get(each["number"], {}) for each in found[campaign_id].waves]
    total = sum(shown["status_breakdown"].values())
    versions = from_versions(found[campaign_id].from_versions, total)
    return shown | {"from_versions": versions}, replace(found[campaign_id], waves=waves)


def overview_facts(found: CampaignFacts, settings: Settings) -> OverviewFacts:
    """The facts of which the verdict is made."""
    row = found.row
    waves = _waves(found)
    return OverviewFacts(
        found.status,
        HowFar.read(found.breakdown),
        reason=row["status_reason"] or None,
        version=row["firmware_version"] or "",
        wanted=row["total_devices"] or 0,
        targeted=row["targeted_devices"] if found.status is not CampaignStatus.ABORTED else None,
        fault=row["fault"],
        guardrails=_guardrails(found, waves),
        waves=waves,
        wave=row["wave"],
        stopped_by=[StoppedBy.read(each) for each in found.stopped_by],
        segments=worst_first([SegmentStanding(**each) for each in found.worst], of=found.segments),
        heard=found.heard_slots >= set(range(settings.listener_slots)),
        in_own_database=row["in_own_database"],
        silent_for=_seconds(row["quiet_since_at"], row["read_at"]),
        cancelled=row["cancelled"],
    )


def _seconds(since: float | None, now: float) -> float | None:
    return None if since is None else now - since


def _guardrails(found: CampaignFacts, waves: Sequence[WaveStanding]) -> list[GuardrailStanding]:
    read = [GuardrailStanding.read(each, waves) for each in found.guardrails]
    if found.status is CampaignStatus.ABORTED and found.row["policy_revision"] is None:
        return [with_reason(each, found.row["status_reason"]) for each in read]
    return read


def _waves(found: CampaignFacts) -> tuple[WaveStanding, ...]:
    """The waves, with what their gates ask for."""
    rules = found.document.waves if found.document is not None else ()
    gates = {number: rule.gate for number, rule in enumerate(rules) if rule.gate is not None}
    read = []
    for each, entry in zip(waves_of.read(found.waves), found.waves, strict=True):
        gate = gates.get(each.number)
        until = _soaks_until(entry.get("soak_from"), None if gate is None else gate.soak)
        # Placing the devices opens the first wave of a campaign, also of one that was not started.
        waits = found.status is CampaignStatus.CREATED and each.state == WaveState.OPEN
        state = WaveState.WAITING.value if waits else each.state
        read.append(replace(each, until=until, approval=gate is not None and gate.approval, state=state))
    return tuple(read)


def _soaks_until(since: str | None, seconds: float | None) -> datetime | None:
    if since is None or not seconds:
        return None
    try:
        return datetime.fromisoformat(since) + timedelta(seconds=seconds)
    except (ValueError, OverflowError):  # other SQL wrote infinity
        return None


def _in_list(found: CampaignFacts, settings: Settings) -> Document:
    facts = overview_facts(found, settings)
    closest = facts.closest
    return {
        "headline": headline(facts).to_json(),
        "devices": facts.devices.to_json(),
        "finished_share": facts.devices.finished_share,
        "failure_rate": facts.devices.failure_rate,
        "trips_after": None if closest is None or closest.tripped or facts.ended else closest.trips_after,
        "waves": len(facts.waves),
        "from_versions": [each["version"] for each in from_versions(found.from_versions, 1)],
    }


def _forecast(found: Forecast | None) -> Document | None:
    return None if found is None else {"earliest": found.earliest, "latest": found.latest, "text": found.text}


def _document(
    shown: Document, facts: OverviewFacts, waiting: WaitingDevices, events: Sequence[Mapping[str, Any]]
) -> Document:
    devices = HowFar.read(shown["status_breakdown"])
    copied = (
        "name",
        "status",
        "status_reason",
        "stopped_by",
        "started_at",
        "completed_at",
        "created_by",
        "created_by_name",
    )
    return {
        "campaign_id": shown["id"],
        "as_of": waiting.as_of,
        **{name: shown[name] for name in copied},
        "version": shown["firmware_version"],
        "from_versions": shown["from_versions"],
        "headline": headline(facts).to_json(),
        "devices": devices.to_json(),
        "finished_share": devices.finished_share,
        "failure_rate": devices.failure_rate,
        "waves": [each.to_json(len(facts.waves), ended=facts.ended) for each in facts.waves],
        "guardrails": [each.to_json(ended=facts.ended) for each in most_used_first(facts.guardrails)],
        "segments": [each.to_json() for each in facts.segments],
        "waiting": [_waiting(each) for each in waiting.waiting],
        "events": list(events),
        "actions": actions(facts.status, devices, cancelled=facts.cancelled),
    }


def _waiting(each: Any) -> Document:
    verdict = each.verdict
    return {
        "reason": verdict.gate,
        "devices": each.devices,
        "until": verdict.until,
        "detail": verdict.detail,
        "text": verdict.text,
    }
