"""``rollwave device``: the reference device agent, and the list of the registered devices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollwave.cli.client import connect, over_api
from rollwave.cli.complete import device_ids, firmware_versions
from rollwave.cli.examples import examples
from rollwave.cli.output import Column, Format, Limit, Output, moment, print_facts, print_page, printed
from rollwave.cli.wire_options import Device, Tenant, Url, broker_at
from rollwave.domain.ids import in_path

if TYPE_CHECKING:
    from rollwave.device.agent import AgentPlan
    from rollwave.mqtt.broker import Broker

app = typer.Typer(help="List and show devices; run the reference device agent.", no_args_is_help=True)


@app.command(
    "list",
    epilog=examples(
        "rollwave device list --version 2.1.0",
        "rollwave device list --select 'site in (north, south) and last_seen < -7d'",
    ),
)
@over_api
def list_(
    select: Annotated[
        str | None,
        typer.Option(help="A selector, such as 'site == north and version < 2.0': only devices that match."),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--version", metavar="V", help="Only devices that run this version.", autocompletion=firmware_versions
        ),
    ] = None,
    device_type: Annotated[str | None, typer.Option(help="Only devices of this type.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List the registered devices, by id.

    A selector compares labels: a device's attributes, and device_id,
    device_type, version, time_zone and last_seen. The waves of a policy use the
    same selectors.

    Operators: == != < <= > >= in (...) not in (...) has(KEY) like 'abc*', joined
    by and, or, not and brackets. All of them: docs/reference/selectors.md
    """
    selector = select
    if version is not None:
        selector = f"version == {_quoted(version)}" + (f" and ({select})" if select else "")
    with connect() as api:
        answer = api.get("/devices", select=selector, device_type=device_type, limit=limit)
    columns: dict[str, Column] = {
        "DEVICE": "device_id",
        "TYPE": "device_type",
        "VERSION": "version",
        "TIME ZONE": "time_zone",
        "LAST SEEN": lambda row: moment(row.get("last_seen")),
        "ATTRIBUTES": lambda row: json.dumps(row["attributes"], ensure_ascii=False) if row["attributes"] else "",
    }
    print_page(answer, output, "devices", columns, empty="No device matches." if selector else "No devices yet.")


def _quoted(text: str) -> str:
    """A text as the grammar of selectors has it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@app.command(epilog=examples("rollwave device show pump-17"))
@over_api
def show(
    device_id: Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id.", autocompletion=device_ids)],
    output: Output = Format.TABLE,
) -> None:
    """Show a device: its version, its labels, and its campaigns, newest first."""
    with connect() as api:
        device = api.get(f"/devices/{in_path(device_id)}")
        campaigns = api.get(f"/devices/{in_path(device_id)}/campaigns")
    if printed({**device, "campaigns": campaigns["campaigns"]}, output, [device["device_id"]]):
        return
    print_facts(
        (
            ("device", device["device_id"]),
            ("type", device.get("device_type")),
            ("version", device.get("version")),
            ("time zone", device.get("time_zone")),
            ("last seen", moment(device.get("last_seen"))),
            *((key, value if isinstance(value, str) else json.dumps(value)) for key, value in _labels(device)),
        )
    )
    columns: dict[str, Column] = {
        "ID": "campaign_id",
        "CAMPAIGN": "name",
        "VERSION": "firmware_version",
        "DEVICE IS": "status",
        "SINCE": lambda row: moment(row["completed_at"] or row["started_at"]),
        "ERROR": lambda row: row["error_code"] or row["error_message"],
    }
    print_page(campaigns, output, "campaigns", columns, empty="The device is in no campaign.")


def _labels(device: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return (device.get("attributes") or {}).items()


@app.command(
    epilog=examples("rollwave device run --tenant demo --device dev-1 --install 'cp {path} /srv/firmware.bin'")
)
def run(
    tenant: Tenant,
    device: Device,
    url: Url = "",
    state: Annotated[
        Path | None,
        typer.Option(help="Directory for the state of the device. Default: .rollwave/TENANT:DEVICE."),
    ] = None,
    install: Annotated[
        str,
        typer.Option(
            help="Command that installs an artifact, run without a shell; {path} is the file. "
            "Default: none; a verified download is a success."
        ),
    ] = "",
    install_timeout: Annotated[
        float, typer.Option(min=0.1, help="Maximum time for the install command, in seconds.")
    ] = 600.0,
    download_timeout: Annotated[float, typer.Option(min=0.1, help="Maximum time for a download, in seconds.")] = 3600.0,
    max_size: Annotated[int, typer.Option(min=1, help="Maximum size of an artifact, in bytes.")] = 4 * 1024**3,
) -> None:
    """Run one device: receive update commands, download, verify, install, report.

    It runs until it is stopped, reconnects by itself, and resumes an
    interrupted update after a restart. The broker's credentials come from
    MQTT_USERNAME, MQTT_PASSWORD, MQTT_CA_CERT, MQTT_CLIENT_CERT and
    MQTT_CLIENT_KEY.

    The install command has the variables ROLLWAVE_FILE, ROLLWAVE_VERSION and
    ROLLWAVE_CAMPAIGN. If it exits with another code than 0, the update has
    FAILED. The last line of its output is the reason.
    """
    from rollwave import log
    from rollwave.device.agent import AgentPlan
    from rollwave.device.download import Limits
    from rollwave.settings import Settings

    settings = Settings.load()
    log.configure(settings)
    plan = AgentPlan(
        tenant_id=tenant,
        device_id=device,
        directory=state or Path(".rollwave") / f"{tenant}:{device}",
        install=install,
        install_timeout=install_timeout,
        limits=Limits(seconds=download_timeout, size=max_size),
    )
    asyncio.run(_until_stopped(broker_at(url, settings), plan))


async def _until_stopped(broker: Broker, plan: AgentPlan) -> None:
    from rollwave.cli.signals import stop_requested
    from rollwave.device.agent import Agent
    from rollwave.device.connection import run_until_first

    stop = stop_requested()
    await run_until_first(Agent(broker, plan).run(), _wait(stop))


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()
