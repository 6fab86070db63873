"""`rollwave campaign`: create, start, pause, abort and watch campaigns."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollwave.cli.brakes import brakes_in_force
from rollwave.cli.campaign_actions import abort, cancel, pause, retry, start
from rollwave.cli.campaign_rules import print_preview, rules_of
from rollwave.cli.client import ApiKey, ApiUrl, CampaignArgument, connect
from rollwave.cli.firmware_choice import Row, find_firmware, in_words
from rollwave.cli.output import Format, Limit, Output, console, moment, print_json, print_page, say
from rollwave.cli.policy_advice import show_advice
from rollwave.cli.segments import promote, release, segments
from rollwave.cli.waiting import explain, waiting
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.words import GateName, Strategy, WaveState

if TYPE_CHECKING:
    from rollwave.client.api import Api
    from rollwave.client.progress import Snapshot

app = typer.Typer(no_args_is_help=True)

AbortThreshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="The campaign aborts itself above this share of failures.  [default: 0.1]"),
]
AbortMinCompleted = Annotated[
    int | None, typer.Option(min=1, help="Minimum number of finished devices before it may abort itself.  [default: 1]")
]
CanaryPercent = Annotated[
    float | None, typer.Option(max=100, help="Size of the canary wave, in percent of the devices.  [default: 5]")
]
ProgressTimeout = Annotated[float | None, typer.Option(help="Maximum seconds between two reports of a device.")]
GivenStrategy = Annotated[
    Strategy | None, typer.Option(help="canary: a few devices first, then the rest.  [default: linear]")
]
GivenPolicy = Annotated[
    str | None,
    typer.Option(metavar="FILE|NAME", help="A policy, instead of the rules below: `rollwave policy` explains."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, create nothing, and print the policy.")]
Wait = Annotated[
    bool | None, typer.Option("--wait/--no-wait", help="Wait until every device is targeted.  [default: on a terminal]")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The campaign's name.")],
    firmware: Annotated[str, typer.Option(metavar="VERSION|id:ID", help="The version, or an id, such as id:2.")],
    group: Annotated[str, typer.Option(help="The device group to update.")],
    policy: GivenPolicy = None,
    strategy: GivenStrategy = None,
    rate: Annotated[int | None, typer.Option(min=1, help="Maximum number of devices per tick.  [default: 10]")] = None,
    abort_threshold: AbortThreshold = None,
    abort_min_completed: AbortMinCompleted = None,
    canary_percent: CanaryPercent = None,
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="Maximum number of devices in progress.")] = None,
    progress_timeout: ProgressTimeout = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Maximum number of attempts per device.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Start the campaign after creating it.")] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Wait, but no longer than this, in seconds.")] = None,
    output: Output = Format.TABLE,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Create a campaign: bring a group of devices to a firmware version.

    Nothing is sent until the campaign is started. The chosen firmware is printed.
    If several device types have the same version, give the id of the firmware: id:2.

    A group of more than 10,000 devices is targeted in the background. On a terminal, or
    with --wait, the command waits and shows the progress on standard error; Ctrl-C stops
    the command, not the targeting. Exits with 3 if the campaign is ABORTED meanwhile, with
    4 after --timeout.
    """
    rules = {
        "rollout_strategy": strategy.value if strategy else None,
        "rollout_rate": rate,
        "abort_threshold": abort_threshold,
        "abort_min_completed": abort_min_completed,
        "canary_percent": canary_percent,
        "max_in_flight": max_in_flight,
        "progress_timeout": progress_timeout,
        "max_attempts": max_attempts,
    }
    body = {"name": name, "target_group_id": group, **rules_of(policy, rules)}
    with connect(api_url, api_key) as api:
        chosen = find_firmware(api, firmware)
        body["firmware_version_id"] = chosen["id"]
        if dry_run:
            print_preview(api.post("/ota/campaigns", body, query={"dry_run": "true"}), output)
            return
        made = api.post("/ota/campaigns", body)
        show_advice(made, body.get("policy"))
        if start:
            made |= api.post(f"/ota/campaigns/{made['id']}/start")
        if wait is None:
            wait = timeout is not None or sys.stderr.isatty()
        waited_for = wait and made.get("targeted_devices") is not None
        if waited_for:
            from rollwave.cli.targeting import wait_until_targeted

            made = wait_until_targeted(api, made["id"], timeout=timeout)
    _print_created(made, chosen, output)
    if made["status"] == CampaignStatus.ABORTED:
        raise typer.Exit(3)
    if waited_for and made["targeted_devices"] is not None:
        raise typer.Exit(4)


def _print_created(made: Mapping[str, Any], firmware: Row, output: Format) -> None:
    if output is Format.JSON:
        print_json(made)
        return
    rest = made.get("targeted_devices")
    so_far = f", {rest:,} of them targeted so far" if rest is not None else ""
    say(f"campaign {made['id']}: {made['total_devices']} devices, {made['status']}{so_far}")
    say(in_words(firmware))


@app.command("list")
def list_(
    status: Annotated[CampaignStatus | None, typer.Option(help="Only those with this status.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List the campaigns, newest first, and the halt and the freezes that are in force."""
    with connect(api_url, api_key) as api:
        answer = api.get("/ota/campaigns", status=status, limit=limit)
        brakes = brakes_in_force(api) if output is Format.TABLE else []
    columns = {
        "ID": "id",
        "NAME": "name",
        "STATUS": "status",
        "GROUP": "target_group_id",
        "DEVICES": "total_devices",
        "SUCCEEDED": "succeeded",
        "FAILED": "failed",
        "CREATED": "created_at",
        "REASON": "status_reason",
    }
    print_page(answer, output, "campaigns", columns, empty="No campaigns. Create one: rollwave campaign create")
    for brake in brakes:
        say(brake)


@app.command()
def show(
    campaign_id: CampaignArgument,
    output: Output = Format.TABLE,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show the state of a campaign: what stops it, its present wave, and how close its guardrails are to tripping."""
    from rollwave.client.progress import Snapshot, counts

    with connect(api_url, api_key) as api:
        document = api.get(f"/ota/campaigns/{campaign_id}")
        if output is Format.JSON:
            print_json(document)
            return
        snapshot = Snapshot.read(document)
        soak_ends = _soak_ends(api, snapshot)
    facts: list[tuple[str, object]] = [
        ("campaign", f"{snapshot.id}: {snapshot.name}"),
        ("status", snapshot.status),
        ("reason", snapshot.reason),
        ("firmware", f"{snapshot.version} at {document.get('firmware_url')}"),
        ("group", document.get("target_group_id")),
        ("stopped by", snapshot.stopped_by),
        ("devices", counts(snapshot)),
        *_rules_in_words(document, snapshot),
        ("wave", _wave_in_words(snapshot, soak_ends)),
        ("started", moment(document.get("started_at"))),
        ("completed", moment(document.get("completed_at"))),
        ("cancelled", moment(document.get("cancelled_at"))),
    ]
    _print_facts([(name, value) for name, value in facts if value])


def _soak_ends(api: Api, snapshot: Snapshot) -> str | None:
    """When the soak of the present wave ends; None: it does not soak, or no device waits for that only."""
    if not any(each.number == snapshot.wave and each.state == WaveState.SOAKING for each in snapshot.waves):
        return None
    waiting = api.get(f"/ota/campaigns/{snapshot.id}/waiting")["waiting"]
    return next((each["until"] for each in waiting if each["reason"] == GateName.WAVE), None)


def _wave_in_words(snapshot: Snapshot, soak_ends: str | None) -> str:
    return f"{snapshot.present_wave} until {moment(soak_ends)}" if soak_ends else snapshot.present_wave


def _rules_in_words(document: Mapping[str, Any], snapshot: Snapshot) -> list[tuple[str, object]]:
    if (revision := document.get("policy_revision")) is not None:
        policy = f"revision {revision}; `rollwave policy show {document['id']}` prints it"
        shown = [each for each in snapshot.guardrails or () if each.tripped or not snapshot.over]
        return [("policy", policy), *(("guardrail", each.text) for each in shown)]
    from rollwave.client.view import guardrail

    pace = f"{document['rollout_strategy']}, {document['rollout_rate']} a tick"
    return [("pace", pace), ("guardrail", guardrail(snapshot))]


def _print_facts(facts: list[tuple[str, object]]) -> None:
    from rich.table import Table

    from rollwave.cli.output import cell

    grid = Table.grid(padding=(0, 2))
    for name, value in facts:
        grid.add_row(name, cell(value))
    console().print(grid)


app.command()(start)
app.command()(pause)
app.command()(abort)
app.command()(cancel)
app.command()(retry)


@app.command()
def devices(
    campaign_id: CampaignArgument,
    status: Annotated[ExecutionStatus | None, typer.Option(help="Only those with this status.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List a campaign's devices and what they last reported."""
    with connect(api_url, api_key) as api:
        answer = api.get(f"/ota/campaigns/{campaign_id}/devices", status=status, limit=limit)
    columns = {
        "DEVICE": "device_id",
        "STATUS": "status",
        "%": "progress_pct",
        "STARTED": "started_at",
        "COMPLETED": "completed_at",
        "CODE": "error_code",
        "ERROR": "error_message",
    }
    print_page(answer, output, "devices", columns, empty="No such devices.")


app.command()(waiting)
app.command()(explain)
app.command()(promote)
app.command()(segments)
app.command()(release)


@app.command()
def watch(
    campaign_id: CampaignArgument,
    timeout: Annotated[float | None, typer.Option(min=0, help="Maximum seconds to follow the campaign.")] = None,
    output: Output = Format.TABLE,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Follow a campaign until it ends.

    On a terminal, the view is live; elsewhere, each change is one line. Exits with 0 when the campaign is
    COMPLETED, with 3 when it is ABORTED, with 4 after --timeout.
    """
    from rollwave.cli import watch as watching

    with connect(api_url, api_key) as api, watching.screen(output) as screen:
        last = watching.follow(api, campaign_id, screen, timeout=timeout)
    raise typer.Exit(watching.exit_code(last))
