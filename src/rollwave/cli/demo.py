"""`rollwave demo`: everything on this machine, and a story."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rollwave.extras import require


def demo(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the data goes. Without: a new temporary folder.")
    ] = None,
    leave: Annotated[bool, typer.Option("--exit", help="Leave after the story, also on a terminal.")] = False,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Keep the last screen as a picture.")] = None,
) -> None:
    """See it work: PostgreSQL, an MQTT broker, the engine, the API and 300 devices, all on this machine.

    A good firmware rolls out to every device; a bad one stops itself early.
    After half a minute the story is over, and everything stays up to be looked
    at, until Ctrl-C. What is left then is a folder with data.
    """
    require("demo", "`rollwave demo`")
    from rollwave.demo.main import play

    raise typer.Exit(play(data, stay=not leave, picture=picture))
