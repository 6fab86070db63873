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
    context,
    demo,
    device,
    device_group,
    doctor,
    firmware,
    fleet,
    init,
    migrate,
    policy,
    quarantine,
    search,
    serve,
)
from rollwave.cli.encoding import spell_what_cannot_be_encoded
from rollwave.cli.examples import examples
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
_OPERATE = "Operate campaigns (over the API: a context, or ROLLWAVE_API_URL and ROLLWAVE_API_KEY)"
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
    "search",
    "halt",
    "freeze",
    "context",
    "init",
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
app.command(rich_help_panel=_LOOK, epilog=examples("rollwave demo", "rollwave demo --data ./demo"))(demo.demo)
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
app.command(rich_help_panel=_OPERATE, epilog=examples("rollwave search spring", "rollwave search pump-1 -o name"))(
    search.search
)
app.command(
    rich_help_panel=_OPERATE,
    epilog=examples(
        'rollwave halt --reason "devices of 2.1.0 do not boot"',
        "rollwave halt --show",
        'rollwave halt --lift --reason "2.1.0 is withdrawn"',
    ),
)(brakes.halt)
app.add_typer(brakes.freeze, name="freeze", help="Stop all sending from one time to another.", rich_help_panel=_OPERATE)
app.add_typer(context.app, name="context", help="Choose the installation that commands use.", rich_help_panel=_OPERATE)
app.command(rich_help_panel=_RUN, epilog=examples("rollwave init", "rollwave init /etc/rollwave/rollwave.env"))(
    init.init
)
app.command(rich_help_panel=_RUN, epilog=examples("rollwave migrate"))(migrate.migrate)
app.command(rich_help_panel=_RUN, epilog=examples("rollwave serve", "rollwave serve --host 0.0.0.0 --port 8080"))(
    serve.serve
)
app.command(rich_help_panel=_RUN, epilog=examples("rollwave worker --port 9090"))(serve.worker)
app.command(
    rich_help_panel=_RUN,
    epilog=examples("rollwave doctor", "rollwave doctor --device-a @lab-1.txt --device-b @lab-2.txt"),
)(doctor.doctor)
app.add_typer(apikey.app, name="apikey", help="Create, list and revoke keys of the API.", rich_help_panel=_RUN)
app.add_typer(
    quarantine.app, name="quarantine", help="List messages from devices that could not be read.", rich_help_panel=_RUN
)
app.command(
    rich_help_panel=_DEVICES, epilog=examples("rollwave fleet --tenant demo --devices 1000 --failure-rate 0.02")
)(fleet.fleet)
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
