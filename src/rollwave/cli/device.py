"""``rollwave device``: the reference device agent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.cli.wire_options import Device, Tenant, Url, broker_at

if TYPE_CHECKING:
    from rollwave.device.agent import AgentPlan
    from rollwave.mqtt.broker import Broker

app = typer.Typer(help="Run the reference device agent.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Run the reference device agent."""


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
