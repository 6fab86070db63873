"""`rollwave firmware`: register and list firmware versions."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from rollwave.cli.client import connect, over_api
from rollwave.cli.examples import examples
from rollwave.cli.firmware_choice import BY_ID
from rollwave.cli.output import Column, Format, Limit, Output, print_page, printed, say
from rollwave.domain.firmware import read_checksum
from rollwave.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


@app.command(epilog=examples("rollwave firmware add app.bin --url https://files.example/a --version 2.0"))
@over_api
def add(
    source: Annotated[
        str, typer.Argument(metavar="FILE_OR_URL", help="URL from which devices download it, or a local file.")
    ],
    version: Annotated[str, typer.Option("--version", metavar="V", help="The version, such as 2.1.0.")],
    url: Annotated[str | None, typer.Option(help="With a file: the URL from which devices download it.")] = None,
    checksum: Annotated[str | None, typer.Option(help="SHA-256 in hex. Computed if a file is given.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Size in bytes. Computed if a file is given.")] = None,
    device_type: Annotated[str | None, typer.Option(help="Only for devices of this type.")] = None,
    description: Annotated[str | None, typer.Option(help="A description of the version.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Register a firmware version.

    Nothing is uploaded: devices download the file from the URL, and verify its
    SHA-256. Registering the same version again changes nothing and prints the
    same id; with other values it is an error. With -o json, "new" says
    whether the version is new.
    """
    body: dict[str, Any] = _artifact(source, url, checksum, size) | {"version": version}
    body |= {"device_type": device_type, "description": description}
    with connect() as api:
        row, new = api.create("/firmware", {key: value for key, value in body.items() if value is not None})
    if not printed({**row, "new": new}, output, [f"{BY_ID}{row['id']}"]):
        say(f"firmware {row['id']}: {row['version']} at {row['file_url']}" + ("" if new else " (registered before)"))


def _artifact(source: str, url: str | None, checksum: str | None, size: int | None) -> dict[str, Any]:
    if "://" in source:
        if url is not None:
            raise InvalidInput("two URLs were given", hint="Give a FILE with --url, or the URL alone.")
        return {"file_url": source, "checksum_sha256": checksum, "file_size_bytes": size}
    path = Path(source)
    if not path.is_file():
        raise InvalidInput(f"{source} is neither a file nor a URL", hint="Name a file that can be read, or a URL.")
    if url is None:
        raise InvalidInput(
            f"{source} is a local file, which devices cannot download",
            hint="Put the file on a web server, and add --url with its URL.",
        )
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror}") from error
    if checksum is not None and read_checksum(checksum) != actual:
        raise InvalidInput(
            f"{source} has the SHA-256 {actual}, not the one in --checksum",
            hint="Check that this is the right file.",
        )
    bytes_held = path.stat().st_size
    if not bytes_held or size not in {None, bytes_held}:
        raise InvalidInput(
            f"{source} has {bytes_held} bytes"
            + (f", not {size}" if bytes_held else ", and devices refuse an empty file"),
            hint="Check that this is the right file.",
        )
    return {"file_url": url, "checksum_sha256": actual, "file_size_bytes": bytes_held}


@app.command("list", epilog=examples("rollwave firmware list", "rollwave firmware list --device-type pump"))
@over_api
def list_(
    device_type: Annotated[str | None, typer.Option(help="Only versions for this device type.")] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List the firmware versions, newest first."""
    with connect() as api:
        answer = api.get("/firmware", device_type=device_type, limit=limit)
    columns: dict[str, Column] = {
        "ID": "id",
        "VERSION": "version",
        "DEVICE TYPE": "device_type",
        "BYTES": "file_size_bytes",
        "SHA-256": lambda row: (row.get("checksum_sha256") or "")[:12],
        "URL": "file_url",
    }
    print_page(
        answer,
        output,
        "firmware_versions",
        columns,
        empty="No firmware yet. Add one: rollwave firmware add",
        name=lambda row: f"{BY_ID}{row['id']}",
    )
