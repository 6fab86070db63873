"""`rollwave migrate`: the schema, brought up to date."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from rollwave.cli.output import say


def migrate(
    force_rls: Annotated[
        bool, typer.Option("--force-rls", help="Also force row-level security on tables adopted from a host.")
    ] = False,
    grant_to: Annotated[
        str | None, typer.Option(metavar="LOGIN", help="A login that shall be able to run the engine.")
    ] = None,
) -> None:
    """Bring the database at DATABASE_URL to this program's schema.

    Safe to repeat, and beside running workers. Tables that a host already has are adopted, with their rows.
    """
    from rollwave.settings import Settings
    from rollwave.store import migrate as schema

    url = Settings.load().require_direct_url()
    applied = asyncio.run(schema.migrate(url, force_rls=force_rls, grant_to=grant_to))
    version = schema.migrations()[-1].version
    if not applied:
        say(f"up to date (schema {version})")
        return
    for name in applied:
        say(f"applied {name}")
    say(f"now at schema {version}")
