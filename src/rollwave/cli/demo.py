"""`rollwave demo`: a whole installation on this machine, a story of three campaigns, and a fleet to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rollwave.extras import require


def demo(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the data. Default: a new temporary folder.")
    ] = None,
    stay: Annotated[
        bool | None,
        typer.Option(
            "--keep/--exit",
            help="Keep everything running after the story, until Ctrl-C, or exit. Default: keep on a terminal.",
        ),
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Save the last screen as a picture.")] = None,
) -> None:
    """Run PostgreSQL, an MQTT broker, the engine, the console and 300 devices on this machine.

    First it prints a link that logs in to the console. Then it plays a story.
    The first campaign brings a good firmware to every device. The second one
    has a bad firmware, and is aborted early. The third one has the bad firmware
    again, under a policy that puts the devices it does not fit under quarantine,
    so that the others get it. With --keep, and on a terminal, everything keeps
    running after that, with two more campaigns: one should be stopped, and one
    waits for the night. The data folder stays.
    """
    require("demo", "`rollwave demo`")
    from rollwave.demo.main import play

    raise typer.Exit(play(data, stay=stay, picture=picture))
