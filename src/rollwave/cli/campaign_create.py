"""`rollwave campaign create`: from options, or from a file that describes the campaign."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rollwave.cli.campaign_rules import print_preview, rules_of
from rollwave.cli.client import connect, over_api
from rollwave.cli.complete import firmware_versions, group_ids, policy_names
from rollwave.cli.firmware_choice import Row, find_firmware, in_words
from rollwave.cli.output import Format, Output, complain, printed, say
from rollwave.cli.policy_advice import show_advice
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy.words import Strategy
from rollwave.errors import InvalidInput

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
    typer.Option(
        metavar="FILE|NAME",
        help="A policy, instead of the rules below: `rollwave policy` explains.",
        autocompletion=policy_names,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, create nothing, and print what it would do.")
]
Wait = Annotated[
    bool | None, typer.Option("--wait/--no-wait", help="Wait until every device is targeted.  [default: on a terminal]")
]


@over_api
def create(
    name: Annotated[str | None, typer.Argument(help="The campaign's name.", show_default=False)] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="FILE|-", help="A file that describes the campaign. Options go first."),
    ] = None,
    firmware: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION|id:ID", help="The version, or an id, such as id:2.", autocompletion=firmware_versions
        ),
    ] = None,
    group: Annotated[str | None, typer.Option(help="The device group to update.", autocompletion=group_ids)] = None,
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
) -> None:
    """Create a campaign: bring a group of devices to a firmware version.

    Nothing is sent until the campaign is started. The chosen firmware is
    printed. If several device types have the same version, give the id of the
    firmware: id:2.

    A file has the keys name, firmware, group, and policy or the rules, with `_`
    for `-`.

    A group of more than 10,000 devices is targeted in the background. On a
    terminal, or with --wait, the command waits and shows the progress on
    standard error; Ctrl-C stops the command, not the targeting. Exits with 3 if
    the campaign is ABORTED meanwhile, with 4 after --timeout.
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
    body, wanted = _request({"name": name, "firmware": firmware, "group": group}, rules_of(policy, rules), file)
    with connect() as api:
        chosen = find_firmware(api, wanted)
        body["firmware_version_id"] = chosen["id"]
        if dry_run:
            complain(f"Would create {body['name']!r} for the group {body['target_group_id']}, with {in_words(chosen)}.")
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


def _request(options: Mapping[str, str | None], rules: dict[str, Any], file: str | None) -> tuple[dict[str, Any], str]:
    """The body of the request without the firmware, and the firmware that is wanted."""
    found: dict[str, Any] = {}
    if file is not None:
        from rollwave.cli.campaign_file import read_campaign

        described = read_campaign(file)
        found = {key: value for key, value in described.items() if key in options}
        # Rules in options replace the file's as a whole: a policy and flat rules exclude each other.
        rules = rules or {key: value for key, value in described.items() if key not in options}
    found |= {key: value for key, value in options.items() if value is not None}
    if missing := [key for key in options if not found.get(key)]:
        options_for = {"name": "the name", "firmware": "--firmware", "group": "--group"}
        raise InvalidInput(
            f"the campaign has no {' and no '.join(missing)}",
            hint=f"Give {', '.join(options_for[key] for key in missing)}, or a file with -f.",
        )
    return {"name": found["name"], "target_group_id": found["group"], **rules}, found["firmware"]


def _print_created(made: Mapping[str, Any], firmware: Row, output: Format) -> None:
    if printed(made, output, [made["id"]]):
        return
    rest = made.get("targeted_devices")
    so_far = f", {rest:,} of them targeted so far" if rest is not None else ""
    say(f"campaign {made['id']}: {made['total_devices']} devices, {made['status']}{so_far}")
    say(in_words(firmware))
