"""`rollwave demo`: a whole installation on this machine, and two campaigns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rollwave.extras import require


def demo(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the data. Default: a new temporary folder.")
    ] = None,
    leave: Annotated[bool, typer.Option("--exit", help="Exit after the campaigns, also on a terminal.")] = False,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Save the last screen as a picture.")] = None,
) -> None:
    """Run PostgreSQL, an MQTT broker, the engine, the API and 300 devices on this machine.

    The first campaign brings a good firmware to every device. The second one
    has a bad firmware, and is aborted early. The third one has the bad firmware
    again, under a policy that puts the devices it does not fit under quarantine,
    so that the others get it. After that, on a terminal, everything keeps running
    until Ctrl-C, so that you can explore it. The data folder stays.
    """
    require("demo", "`rollwave demo`")
    from rollwave.demo.main import play

    raise typer.Exit(play(data, stay=not leave, picture=picture))
