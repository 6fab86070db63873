"""`rollwave halt` and `rollwave freeze`: stop all sending of a tenant, now or from one time to another."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollwave.cli.client import connect, over_api
from rollwave.cli.examples import examples
from rollwave.cli.output import Column, Format, Limit, Output, moment, print_page, printed, say
from rollwave.domain.ids import in_path
from rollwave.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from rollwave.client.api import Api
    from rollwave.store.database import Pool

freeze = typer.Typer(no_args_is_help=True)


@over_api
def halt(
    reason: Annotated[str | None, typer.Option(help="Why. Needed to halt; it is shown wherever devices wait.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift the halt: send again.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show whether sending is halted, and change nothing.")] = False,
    everyone: Annotated[
        bool, typer.Option("--all", help="Every tenant, on DATABASE_URL instead of the API. Needs BYPASSRLS.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Stop all sending of the tenant within a second, or lift that again.

    Campaigns keep their status, reports still count, and deadlines stand still.
    Nothing ignores a halt, also no policy that ignores freezes. `rollwave
    campaign waiting` then names the gate `halted`.
    """
    if (lift and show) or (everyone and show):
        raise typer.BadParameter("--show stands alone")
    if not lift and not show and not reason:
        raise InvalidInput("a halt needs a reason", hint='Add --reason "…"; or use --show, or --lift.')
    if everyone:
        _halt_everyone(reason, lift=lift)
        return
    with connect() as api:
        if show:
            answer = api.get("/ota/halt")
        elif lift:
            answer = api.delete("/ota/halt", reason=reason)
        else:
            answer = api.post("/ota/halt", {"reason": reason})
    if printed(answer, output, ["halted"] if answer["halted"] else []):
        return
    say(_in_words(answer))


def _in_words(state: Mapping[str, Any]) -> str:
    if not state["halted"]:
        return "sending is not halted"
    return (
        f"sending is halted since {moment(state['since'])} by {state.get('by_name') or state['by']}: {state['reason']}"
    )


def brakes_in_force(api: Api) -> list[str]:
    """The halt and the freezes of the tenant that are in force, one sentence each."""
    try:
        halt = api.get("/ota/halt")
    except NotFound:  # the server is of an earlier version
        return []
    found = [_in_words(halt)] if halt["halted"] else []
    for each in api.pages("/ota/freezes", "freezes"):
        if each["in_force"]:
            reason = f": {each['reason']}" if each["reason"] else ""
            found.append(f"freeze {each['name']} is in force until {moment(each['end'])}{reason}")
    return found


def _halt_everyone(reason: str | None, *, lift: bool) -> None:
    from rollwave.cli.database import with_pool
    from rollwave.store import brakes

    together, change = (brakes.lift_tenants, brakes.lift) if lift else (brakes.halt_tenants, brakes.halt)
    said: dict[str, Any] = {"actor": getpass.getuser(), "reason": reason if lift else reason or ""}
    number, failed = with_pool(partial(_change_all, partial(together, **said), partial(change, **said)))
    say(f"sending is {'not halted' if lift else 'halted'} for {number} tenant{'s' * (number != 1)}")
    for tenant, error in failed.items():
        typer.echo(f"Error: {'not lifted' if lift else 'not halted'} for {tenant}: {error}", err=True)
    if failed:
        raise typer.Exit(1)


async def _change_all(
    together: Callable[[Pool, Sequence[str]], Awaitable[object]],
    change: Callable[[Pool, str], Awaitable[object]],
    pool: Pool,
) -> tuple[int, dict[str, BaseException]]:
    """Change all tenants together; if that fails, each by itself, also after one failed.

    Returns the number of changed tenants, and the errors of the others. An unavailable database raises.
    """
    from rollwave.store import brakes
    from rollwave.store.outage import is_away

    failed: dict[str, BaseException] = {}
    tenants = await brakes.tenants(pool)
    with suppress(Exception):
        await together(pool, tenants)
        return len(tenants), failed
    for tenant in tenants:
        try:
            await change(pool, tenant)
        except Exception as error:
            if is_away(error):
                raise
            failed[tenant] = error
    return len(tenants) - len(failed), failed


def _time(text: str) -> str:
    from rollwave.domain.policy.document.units import read_time

    try:
        read_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return text


Start = Annotated[str, typer.Option(metavar="TIME", parser=_time, help="When it begins, in RFC 3339 with a zone.")]
End = Annotated[str, typer.Option(metavar="TIME", parser=_time, help="When it ends, in RFC 3339 with a zone.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The freeze's name.")]


@freeze.command(epilog=examples("rollwave freeze add year-end --start 2027-12-18T00:00:00Z --end 2028-01-07T00:00:00Z"))
@over_api
def add(
    name: Name,
    start: Start,
    end: End,
    reason: Annotated[str | None, typer.Option(help="Why. It is shown wherever devices wait.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Send nothing from one time to another, in any campaign of the tenant.

    A freeze does not stop a campaign whose policy has `ignore_freezes: true`.
    """
    body = {"name": name, "start": start, "end": end, "reason": reason}
    with connect() as api:
        made = api.post("/ota/freezes", {key: value for key, value in body.items() if value is not None})
    if printed(made, output, [made["name"]]):
        return
    say(f"freeze {made['name']}: from {moment(made['start'])} to {moment(made['end'])}")


@freeze.command("list", epilog=examples("rollwave freeze list"))
@over_api
def list_(limit: Limit = 50, output: Output = Format.TABLE) -> None:
    """List the freezes, also those that are over."""
    with connect() as api:
        answer = api.get("/ota/freezes", limit=limit)
    columns: dict[str, Column] = {
        "NAME": "name",
        "START": lambda row: moment(row["start"]),
        "END": lambda row: moment(row["end"]),
        "IN FORCE": lambda row: "yes" if row["in_force"] else "no",
        "BY": lambda row: row.get("created_by_name") or row["created_by"],
        "REASON": "reason",
    }
    print_page(answer, output, "freezes", columns, empty="No freezes.")


@freeze.command(epilog=examples('rollwave freeze remove year-end --reason "all back at work"'))
@over_api
def remove(
    name: Name,
    reason: Annotated[str | None, typer.Option(help="Why, for the audit row.")] = None,
) -> None:
    """End a freeze now, or delete one that has not begun or is over."""
    with connect() as api:
        api.delete(f"/ota/freezes/{in_path(name)}", reason=reason)
    say(f"freeze {name} is removed")
