"""`rollwave search`: find what has a name."""

from __future__ import annotations

from typing import Annotated

import typer

from rollwave.cli.client import connect, over_api
from rollwave.cli.output import Format, Output, printed, table


@over_api
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A number, a part of a name, or the beginning of an id.")],
    output: Output = Format.TABLE,
) -> None:
    """Find campaigns by number or a part of their name, devices and groups by the beginning of their id, and firmware.

    At most ten of each kind are shown.
    """
    with connect() as api:
        answer = api.get("/search", q=text)
    rows = [
        *(("campaign", each["id"], each["name"], each["status"]) for each in answer["campaigns"]),
        *(("device", each, "", "") for each in answer["devices"]),
        *(("device-group", each, "", "") for each in answer["device_groups"]),
        *(("firmware", each["id"], each["version"], each["device_type"]) for each in answer["firmware"]),
    ]
    if printed(answer, output, (f"{kind}/{key}" for kind, key, *_ in rows)):
        return
    table(("KIND", "ID", "NAME", ""), rows, empty="Nothing was found.")
