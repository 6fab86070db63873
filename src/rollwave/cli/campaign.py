"""`rollwave campaign`: create, start, pause, abort and watch campaigns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rollwave.cli.brakes import brakes_in_force
from rollwave.cli.campaign_actions import abort, cancel, pause, retry, start
from rollwave.cli.campaign_create import create
from rollwave.cli.campaign_past import causes, report, timeline
from rollwave.cli.campaign_show import show
from rollwave.cli.client import CampaignArgument, connect, over_api
from rollwave.cli.examples import examples
from rollwave.cli.output import Column, Format, Limit, Output, complain, print_page
from rollwave.cli.segments import promote, release, segments
from rollwave.cli.waiting import explain, waiting
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus

app = typer.Typer(no_args_is_help=True)

_NARROW, _WIDE = 120, 170
"""Columns of the terminal. On a narrower one, a list leaves out what `show` tells: below 170 only the forecast."""

app.command(
    epilog=examples(
        "rollwave campaign create Spring --firmware 2.4.1 --group pumps --strategy canary --start",
        "rollwave campaign create Spring --firmware 2.4.1 --group pumps --policy careful --dry-run",
        "rollwave campaign create -f campaign.yaml",
    )
)(create)


@app.command("list", epilog=examples("rollwave campaign list", "rollwave campaign list --status RUNNING -o name"))
@over_api
def list_(
    status: Annotated[CampaignStatus | None, typer.Option(help="Only those with this status.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List the campaigns, newest first, and the halt and the freezes that are in force.

    VERDICT is empty where nothing needs attention.
    """
    with connect() as api:
        answer = api.get("/ota/campaigns", status=status, limit=limit)
        brakes = brakes_in_force(api) if output is Format.TABLE else []
    columns: dict[str, Column] = {
        "ID": "id",
        "NAME": "name",
        "STATUS": "status",
        "DONE": _done,
        "FAILED": "failed",
        "VERDICT": _verdict,
        "WAVE": _wave,
        "FORECAST": lambda row: (row.get("forecast") or {}).get("text"),
        "VERSION": lambda row: row.get("firmware_version"),
        "GROUP": "target_group_id",
        "DEVICES": "total_devices",
        "SUCCEEDED": "succeeded",
        "CREATED": "created_at",
        "REASON": "status_reason",
    }
    if not any("forecast" in row for row in answer["campaigns"]):
        del columns["FORECAST"]
    if sys.stdout.isatty():
        columns = _that_fit(columns, answer["campaigns"])
    print_page(answer, output, "campaigns", columns, empty="No campaigns. Create one: rollwave campaign create")
    for brake in brakes:
        complain(brake)


def _that_fit(columns: Mapping[str, Column], rows: list[dict[str, Any]]) -> dict[str, Column]:
    width = shutil.get_terminal_size().columns
    left_out = {"VERSION", "SUCCEEDED", "REASON"}
    if width < _WIDE:
        left_out.add("FORECAST")
    if width < _NARROW:
        left_out |= {"WAVE", "GROUP", "DEVICES", "CREATED"}
    empty = {name for name, column in columns.items() if callable(column) and not any(column(row) for row in rows)}
    return {name: column for name, column in columns.items() if name not in left_out | empty}


def _done(row: Mapping[str, Any]) -> str:
    share = row.get("finished_share")
    return "" if share is None else f"{share:.0%}".replace("%", " %")


def _verdict(row: Mapping[str, Any]) -> str:
    headline = row.get("headline") or {}
    return "" if headline.get("level") in {None, "ok"} else headline["text"]


def _wave(row: Mapping[str, Any]) -> str:
    waves, number = row.get("waves") or 0, row.get("wave") or 0
    return f"{number + 1} of {waves}" if waves > 1 else ""


app.command(epilog=examples("rollwave campaign show 7", "rollwave campaign show 7 -o yaml"))(show)
app.command(epilog=examples("rollwave campaign start 7"))(start)
app.command(epilog=examples("rollwave campaign pause 7"))(pause)
app.command(epilog=examples("rollwave campaign abort 7", "rollwave campaign abort 7 --yes"))(abort)
app.command(epilog=examples('rollwave campaign cancel 7 --reason "battery drain seen in the lab"'))(cancel)
app.command(epilog=examples("rollwave campaign retry 7 --reason no_answer", "rollwave campaign retry 7 --code E_BOOT"))(
    retry
)


@app.command(
    epilog=examples(
        "rollwave campaign devices 7 --status FAILED",
        "rollwave campaign devices 7 --status FAILED -o name",
    )
)
@over_api
def devices(
    campaign_id: CampaignArgument,
    status: Annotated[ExecutionStatus | None, typer.Option(help="Only those with this status.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List a campaign's devices and what they last reported."""
    with connect() as api:
        answer = api.get(f"/ota/campaigns/{campaign_id}/devices", status=status, limit=limit)
    columns: dict[str, Column] = {
        "DEVICE": "device_id",
        "STATUS": "status",
        "%": "progress_pct",
        "STARTED": "started_at",
        "COMPLETED": "completed_at",
        "CODE": "error_code",
        "ERROR": "error_message",
    }
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < _NARROW:
        del columns["STARTED"]
    print_page(answer, output, "devices", columns, empty="No such devices.")


app.command(epilog=examples("rollwave campaign waiting 7"))(waiting)
app.command(epilog=examples("rollwave campaign explain 7 pump-17"))(explain)
app.command(epilog=examples("rollwave campaign causes 7", "rollwave campaign causes 7 --by code,label:revision"))(
    causes
)
app.command(epilog=examples("rollwave campaign timeline 7 -o json"))(timeline)
app.command(epilog=examples("rollwave campaign report 7", "rollwave campaign report 7 --output ticket-4711.html"))(
    report
)
app.command(epilog=examples('rollwave campaign promote 7 canary --reason "seen enough"'))(promote)
app.command(epilog=examples("rollwave campaign segments 7"))(segments)
app.command(epilog=examples('rollwave campaign release 7 3 --reason "cable replaced"'))(release)


@app.command(epilog=examples("rollwave campaign watch 7", "rollwave campaign watch 7 --timeout 3600 > rollout.log"))
@over_api
def watch(
    campaign_id: CampaignArgument,
    timeout: Annotated[float | None, typer.Option(min=0, help="Maximum seconds to follow the campaign.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Follow a campaign until it ends.

    On a terminal, the view is live; elsewhere, each change is one line, or one
    document with -o json. Exits with 0 when the campaign is COMPLETED, with 3
    when it is ABORTED, with 4 after --timeout.
    """
    from rollwave.cli import watch as watching

    with connect() as api, watching.screen(output) as screen:
        last = watching.follow(api, campaign_id, screen, timeout=timeout)
    raise typer.Exit(watching.exit_code(last))
