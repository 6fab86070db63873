"""`rollwave migrate`: bring the schema up to date, and say which database the installation belongs to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.cli.output import complain, say

if TYPE_CHECKING:
    from rollwave.store.migrate import Migrated


def migrate(
    adopt_only: Annotated[
        bool,
        typer.Option(
            "--adopt-only",
            help="Create none of the tables that another service creates; fail if one is missing.",
        ),
    ] = False,
    force_rls: Annotated[
        bool, typer.Option("--force-rls", help="Also force row-level security on tables adopted from a host.")
    ] = False,
    grant_to: Annotated[str | None, typer.Option(metavar="LOGIN", help="Allow this login to run the engine.")] = None,
    moved: Annotated[
        bool,
        typer.Option("--moved", help="This database is the original, after a restore, an upgrade or a move."),
    ] = False,
    copy: Annotated[
        bool,
        typer.Option("--copy", help="This database is a copy: new identity, and its RUNNING campaigns are paused."),
    ] = False,
) -> None:
    """Bring the schema of the database at DATABASE_URL up to date with this version.

    Safe to repeat, also while workers run. Each run compares roles, grants,
    policies and owners with what they should be and repairs them, for example
    after a dump was restored without them.

    Tables of another service (tenants, devices, device_groups,
    device_group_members, firmware_versions, ota_campaigns, ota_device_status)
    are adopted, with their rows. Run the migrations of that service first:
    otherwise they find tables that Rollwave created, and fail or skip their
    work. With --adopt-only nothing is changed until that service has created
    all of them.

    An installation belongs to one database. If its rows are found in another
    database, no worker listens or sends until --moved or --copy says what that
    database is.
    """
    from rollwave.settings import Settings
    from rollwave.store import migrate as schema
    from rollwave.store.identity import Decision

    if moved and copy:
        raise typer.BadParameter("use one of the two", param_hint="--moved, --copy")
    decision = Decision.MOVED if moved else Decision.COPY if copy else None
    url = Settings.load().require_direct_url()
    done = asyncio.run(
        schema.migrate(url, adopt_only=adopt_only, force_rls=force_rls, grant_to=grant_to, decision=decision)
    )
    _tell(done, schema.migrations()[-1].version)


def _tell(done: Migrated, version: int) -> None:
    for name in done.applied:
        say(f"applied {name}")
    for what in done.repaired:
        say(f"repaired: {what}")
    if done.applied:
        say(f"now at schema {version}")
    elif done.repaired or done.unrepaired:
        say(f"at schema {version}; {len(done.repaired)} rights were repaired")
    else:
        say(f"up to date (schema {version})")
    if done.made:
        complain(f"{'warning' if done.made.among_others else 'note'}: {done.made}")
        complain(f"hint: {done.made.hint}")
    for what in done.unrepaired:
        complain(f"warning: could not be repaired: {what}")
    for words in done.refused:
        complain(f"warning: {words}")
        complain(f"hint: {words.hint}")
    if done.identity:
        say(done.identity)
    if done.undecided:
        complain(f"warning: {done.undecided}")
        complain(f"hint: {done.undecided.hint}")
