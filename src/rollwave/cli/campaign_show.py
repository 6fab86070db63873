"""`rollwave campaign show`: the present state of a campaign."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rollwave.cli.client import CampaignArgument, connect, over_api
from rollwave.cli.output import Format, Output, moment, print_facts, printed


@over_api
def show(campaign_id: CampaignArgument, output: Output = Format.TABLE) -> None:
    """Show the state of a campaign: the verdict, its waves, and how close its guardrails are to tripping."""
    from rollwave.client.follow import overview
    from rollwave.client.progress import Snapshot

    with connect() as api:
        document = api.get(f"/ota/campaigns/{campaign_id}")
        if printed(document, output, [campaign_id]):
            return
        seen = overview(api, campaign_id)
    print_facts(_facts(document, Snapshot.read(seen)))


def _facts(document: Mapping[str, Any], snapshot: Any) -> Iterator[tuple[str, object]]:
    from rollwave.client.progress import counts

    yield "campaign", f"{snapshot.id}: {snapshot.name}"
    yield "status", snapshot.status
    yield "reason", snapshot.reason
    yield "verdict", snapshot.headline
    yield "firmware", f"{snapshot.versions('to')} at {document.get('firmware_url')}"
    yield "group", document.get("target_group_id")
    yield "devices", counts(snapshot)
    if snapshot.rules:
        yield "rules", snapshot.rules
    if (revision := document.get("policy_revision")) is not None:
        yield "policy", f"revision {revision}; `rollwave policy show {snapshot.id}` prints it"
    else:
        yield "pace", f"{document['rollout_strategy']}, {document['rollout_rate']} a tick"
    if len(snapshot.waves) > 1:
        for wave in snapshot.waves:
            until = f" until {moment(wave.until.isoformat())}" if wave.until else ""
            yield "wave", f"{wave.text}{until}, {wave.numbers}"
    for guardrail in snapshot.guardrails_to_show:
        yield "guardrail", guardrail.text
    for cause in snapshot.causes:
        yield "failures", cause.text
    if not snapshot.over:
        yield "forecast", snapshot.forecast
    creator = document.get("created_by_name") or document.get("created_by") or "unknown"
    yield "created", f"{moment(document.get('created_at'))} by {creator}"
    yield "started", moment(document.get("started_at"))
    yield "completed", moment(document.get("completed_at"))
    yield "cancelled", moment(document.get("cancelled_at"))
