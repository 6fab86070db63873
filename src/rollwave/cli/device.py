"""``rollwave device``: the reference device agent, and the list of the registered devices."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.cli.client import ApiKey, ApiUrl, connect
from rollwave.cli.output import Column, Format, Limit, Output, moment, print_page
from rollwave.cli.wire_options import Device, Tenant, Url, broker_at

if TYPE_CHECKING:
    from rollwave.device.agent import AgentPlan
    from rollwave.mqtt.broker import Broker

app = typer.Typer(help="Run the reference device agent; list devices.", no_args_is_help=True)


@app.command("list")
def list_(
    select: Annotated[
        str | None,
        typer.Option(help="A selector, such as 'site == north and version < 2.0': only devices that match."),
    ] = None,
    device_type: Annotated[str | None, typer.Option(help="Only devices of this type.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List the registered devices, by id.

    A selector compares labels: a device's attributes, and device_id, device_type,
    version, time_zone and last_seen. The waves of a policy use the same selectors.

        rollwave device list --select 'site in (north, south) and last_seen < -7d'

    Operators: == != < <= > >= in (...) not in (...) has(KEY) like 'abc*', joined
    by and, or, not and brackets. All of them: docs/reference/selectors.md
    """
    with connect(api_url, api_key) as api:
        answer = api.get("/devices", select=select, device_type=device_type, limit=limit)
    columns: dict[str, Column] = {
        "DEVICE": "device_id",
        "TYPE": "device_type",
        "VERSION": "version",
        "TIME ZONE": "time_zone",
        "LAST SEEN": lambda row: moment(row.get("last_seen")),
        "ATTRIBUTES": lambda row: json.dumps(row["attributes"], ensure_ascii=False) if row["attributes"] else "",
    }
    print_page(answer, output, "devices", columns, empty="No device matches." if select else "No devices yet.")


@app.command()
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

    It runs until it is stopped, reconnects by itself, and resumes an interrupted update after a restart.
    The broker's credentials come from MQTT_USERNAME, MQTT_PASSWORD, MQTT_CA_CERT,
    MQTT_CLIENT_CERT and MQTT_CLIENT_KEY.

    The install command has the variables ROLLWAVE_FILE, ROLLWAVE_VERSION and ROLLWAVE_CAMPAIGN.
    If it exits with another code than 0, the update has FAILED. The last line of its output is the reason.

    For example:

        rollwave device run --tenant demo --device dev-1 --install 'cp {path} /srv/firmware.bin'
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
