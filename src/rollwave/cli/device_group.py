"""`rollwave device-group`: create and change groups of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rollwave.cli.client import connect, over_api
from rollwave.cli.devices_csv import Device, Mistake, read_devices
from rollwave.cli.examples import examples
from rollwave.cli.output import Format, Limit, Output, complain, print_page, printed, say, table
from rollwave.domain.ids import ID_RULE, in_path, is_valid_id
from rollwave.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


def _checked_group(text: str) -> str:
    if not is_valid_id(text):
        raise typer.BadParameter(f"a group's id is {ID_RULE}")
    return text


GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.", callback=_checked_group)]

_MISTAKES_SHOWN = 20


@app.command("import", epilog=examples("rollwave device-group import pumps pumps.csv"))
@over_api
def import_(
    group: GroupArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="A CSV file with a column device_id.")],
    output: Output = Format.TABLE,
) -> None:
    """Replace the members of a group by the devices of a CSV file.

    The first line names the columns: device_id, optionally device_type, and any
    others, which become attributes. Values are separated by commas, semicolons
    or tabs. The encoding is UTF-8, or UTF-16 with a byte order mark.

    All or nothing: after a mistake in the file, an error or Ctrl-C, the group
    is unchanged. Maximum: 1,000,000 devices.
    """
    from rollwave.cli.group_import import replace_members

    devices = _checked(file)
    with connect() as api:
        answer = replace_members(api, group, devices)
    _print_outcome(answer, output)


def _checked(file: Path) -> list[Device]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    devices, mistakes = read_devices(content)
    if mistakes:
        _complain_of(file, mistakes)
        raise InvalidInput(
            f"{len(mistakes)} mistake{'s' * (len(mistakes) > 1)} in {file}; the group was not changed",
            hint="Correct the lines named above, then import the file again.",
        )
    return devices


def _complain_of(file: Path, mistakes: list[Mistake]) -> None:
    for mistake in mistakes[:_MISTAKES_SHOWN]:
        complain(f"{file}:{mistake.line}: {mistake.what}")
    if len(mistakes) > _MISTAKES_SHOWN:
        complain(f"… and {len(mistakes) - _MISTAKES_SHOWN} more")


@app.command(epilog=examples("rollwave device-group put pilots pump-1 pump-2"))
@over_api
def put(
    group: GroupArgument,
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Ids of all members.")],
    output: Output = Format.TABLE,
) -> None:
    """Replace the members of a group by the named devices."""
    for device in devices:
        if device.lower().endswith(".csv") and Path(device).is_file():
            raise InvalidInput(
                f"{device} is a file; `put` needs the ids of devices",
                hint=f"Run rollwave device-group import {group} {device}",
            )
    with connect() as api:
        answer = api.put(f"/device-groups/{in_path(group)}", {"device_ids": devices})
    _print_outcome(answer, output)


def _print_outcome(answer: dict[str, Any], output: Format) -> None:
    if not printed(answer, output, [answer["group_id"]]):
        say(
            f"group {answer['group_id']}: {answer['total']} devices"
            f" ({answer['added']} added, {answer['removed']} removed, {answer['registered']} new)"
        )


@app.command("list", epilog=examples("rollwave device-group list"))
@over_api
def list_(limit: Limit = 50, output: Output = Format.TABLE) -> None:
    """List the groups."""
    with connect() as api:
        answer = api.get("/device-groups", limit=limit)
    columns = {"GROUP": "group_id", "DEVICES": "total", "CREATED": "created_at"}
    empty = "No groups. Create one: rollwave device-group import"
    print_page(answer, output, "device_groups", columns, empty=empty)


@app.command(epilog=examples("rollwave device-group show pumps --limit 1000"))
@over_api
def show(
    group: GroupArgument,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """Show a group's members."""
    with connect() as api:
        answer = api.get(f"/device-groups/{in_path(group)}", limit=limit)
    if printed(answer, output, answer["device_ids"]):
        return
    rows = [(device_id,) for device_id in answer["device_ids"]]
    table(("DEVICE",), rows, empty="The group is empty.", total=answer["total"])
