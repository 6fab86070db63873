"""The command line. A command imports what it needs when it runs, so that `--help` is fast."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from rollwave.cli import (
    apikey,
    brakes,
    campaign,
    demo,
    device,
    device_group,
    doctor,
    firmware,
    fleet,
    migrate,
    policy,
    quarantine,
    serve,
)
from rollwave.cli.encoding import spell_what_cannot_be_encoded
from rollwave.cli.output import complain
from rollwave.errors import RollwaveError

HELP = """
Update firmware over the air, in campaigns that stop themselves when too many devices fail.

[bold]A first campaign[/bold], with DATABASE_URL and MQTT_BROKER_URL set:

  rollwave migrate
  rollwave serve &
  export ROLLWAVE_API_KEY=$(rollwave apikey create --tenant demo --role admin)
  rollwave device-group import all devices.csv
  rollwave firmware add app.bin --url https://files.example/a --version 2.0
  rollwave campaign create "Spring" --firmware 2.0 --group all --start
  rollwave campaign watch 1

[dim]Without servers of your own, try `rollwave demo`.

Exit codes: 0 done, 1 error, 2 usage, 3 campaign aborted, 4 timed out.[/dim]
"""

_LOOK = "See it work"
_OPERATE = "Operate campaigns (over the API: ROLLWAVE_API_URL, ROLLWAVE_API_KEY)"
_RUN = "Run the engine (on DATABASE_URL and MQTT_BROKER_URL)"
_DEVICES = "Run devices (on MQTT_BROKER_URL)"


class InOrder(TyperGroup):
    """Lists commands as they are registered here; typer would put groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


_ORDER = (
    "demo",
    "campaign",
    "policy",
    "firmware",
    "device-group",
    "halt",
    "freeze",
    "migrate",
    "serve",
    "worker",
    "doctor",
    "apikey",
    "quarantine",
    "fleet",
)

app = typer.Typer(
    name="rollwave",
    cls=InOrder,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel=_LOOK)(demo.demo)
app.add_typer(
    campaign.app, name="campaign", help="Create, start, pause, abort and watch campaigns.", rich_help_panel=_OPERATE
)
app.add_typer(
    policy.app, name="policy", help="Check, show, edit and store policies of campaigns.", rich_help_panel=_OPERATE
)
app.add_typer(firmware.app, name="firmware", help="Register and list firmware versions.", rich_help_panel=_OPERATE)
app.add_typer(
    device_group.app, name="device-group", help="Create and change groups of devices.", rich_help_panel=_OPERATE
)
app.command(rich_help_panel=_OPERATE)(brakes.halt)
app.add_typer(brakes.freeze, name="freeze", help="Stop all sending from one time to another.", rich_help_panel=_OPERATE)
app.command(rich_help_panel=_RUN)(migrate.migrate)
app.command(rich_help_panel=_RUN)(serve.serve)
app.command(rich_help_panel=_RUN)(serve.worker)
app.command(rich_help_panel=_RUN)(doctor.doctor)
app.add_typer(apikey.app, name="apikey", help="Create, list and revoke keys of the API.", rich_help_panel=_RUN)
app.add_typer(
    quarantine.app, name="quarantine", help="List messages from devices that could not be read.", rich_help_panel=_RUN
)
app.command(rich_help_panel=_DEVICES)(fleet.fleet)
app.add_typer(device.app, name="device", rich_help_panel=_DEVICES)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rollwave {version('rollwave')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run() -> NoReturn:
    """The program. Exits 0 done, 1 error, 2 usage, 3 campaign aborted, 4 timed out, 130 on Ctrl-C."""
    spell_what_cannot_be_encoded(sys.stdout, sys.stderr)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except RollwaveError as error:
        _explain(error)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of the output has closed the pipe. Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _explain(error: RollwaveError) -> None:
    complain(f"error: {error}")
    if error.hint:
        complain(f"hint: {error.hint}")
