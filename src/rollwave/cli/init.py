"""`rollwave init`: write a file with all settings, and check those for the database and the broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.cli.output import complain, say
from rollwave.errors import InvalidInput

if TYPE_CHECKING:
    from rollwave.doctor.finding import Finding
    from rollwave.settings import Settings

_SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "database_url": "Database",
        "mqtt_broker_url": "Broker",
        "tick_interval": "Campaigns",
        "lease": "Throughput: the defaults suit most installations",
        "api_url": "Operators' commands",
        "log_level": "Logs",
    }
)
"""The headings of the file, by the setting that follows."""

_HEAD = """\
# Settings of Rollwave. Remove the `#` before a name to change its default.
#
#   shell    set -a; . {file}; set +a
#   systemd  EnvironmentFile={file}
#
# This file may hold passwords: only its owner can read it. docs/reference/settings.md explains each setting.
"""


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("rollwave.env"),
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="PostgreSQL URL. Default: DATABASE_URL.", show_default=False)
    ] = None,
    broker_url: Annotated[
        str | None, typer.Option(metavar="URL", help="MQTT URL. Default: MQTT_BROKER_URL.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Connect to the database and the broker.")] = True,
) -> None:
    """Write a file with all settings and what they mean, and check it.

    Settings that are exported keep their values; the others are comments with
    their defaults. Then the database and the broker are checked as `rollwave
    doctor` does, with the settings of the file. Exits with 1 if one of them
    cannot be used; the file is written all the same.
    """
    from rollwave.settings import Settings

    exported = Settings.exported()
    given = {"DATABASE_URL": database_url, "MQTT_BROKER_URL": broker_url}
    variables = exported | {name: value for name, value in given.items() if value}
    _write(file, "\n".join(_lines(file, variables)) + "\n", force=force)
    complain(f"Wrote {file}.")
    if not check:
        return
    from rollwave.cli.doctor import print_findings

    findings = asyncio.run(_examined(Settings.read(variables)))
    print_findings(findings)
    unmigrated = any(finding.check == "schema" and finding.state == "problem" for finding in findings)
    if unmigrated:
        say("Next: load the file, then run `rollwave migrate` and `rollwave serve`.")
    if any(finding.state == "problem" and finding.check != "schema" for finding in findings):
        raise typer.Exit(1)


def _write(file: Path, text: str, *, force: bool) -> None:
    mode = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(file, mode, 0o600), "w", encoding="utf-8") as opened:
            file.chmod(0o600)
            opened.write(text)
    except FileExistsError:
        raise InvalidInput(f"{file} exists, and was not changed", hint="Add --force to replace it.") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from error


def _lines(file: Path, variables: Mapping[str, str]) -> Iterator[str]:
    from rollwave.settings import Settings

    yield _HEAD.format(file=file.absolute())
    for name, field in Settings.model_fields.items():
        if name in _SECTIONS:
            yield f"# --- {_SECTIONS[name]} ---\n"
        yield f"# {field.description}"
        value = variables.get(str(field.alias))
        default = "" if field.default is None else str(field.default)
        yield f"#{field.alias}={default}\n" if value is None else f"{field.alias}={_quoted(value)}\n"


def _quoted(value: str) -> str:
    """A value as a shell and systemd read it."""
    plain = all(char.isalnum() or char in "_./:@%+,-" for char in value)
    return value if plain else "'" + value.replace("'", "'\\''") + "'"


async def _examined(settings: Settings) -> list[Finding]:
    from rollwave.doctor.broker import examine_broker
    from rollwave.doctor.database import examine_database

    return [*await examine_database(settings), *await examine_broker(settings, None)]
