"""`rollwave apikey`: the keys of the API. Works on the database, because the API needs a key to create one."""

from __future__ import annotations

import re
from dataclasses import asdict, astuple
from datetime import timedelta
from typing import Annotated

import typer

from rollwave.cli.database import with_pool
from rollwave.cli.examples import examples
from rollwave.cli.output import Format, Output, printed, say, table
from rollwave.domain.role import Role
from rollwave.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)

TenantOption = Annotated[str, typer.Option("--tenant", metavar="T", help="The tenant that the key belongs to.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _lifetime(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,4})([smhd])", text)
    if not found:
        raise typer.BadParameter("use a number with s, m, h or d, as in 90d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@app.command(epilog=examples("export ROLLWAVE_API_KEY=$(rollwave apikey create --tenant demo --role admin)"))
def create(
    tenant: TenantOption,
    role: Annotated[Role, typer.Option(help="Each role includes the rights of the roles before it.")],
    name: Annotated[str, typer.Option(help="A note, such as the name of the program that uses the key.")] = "",
    expires_in: Annotated[
        timedelta | None,
        typer.Option(metavar="90d", parser=_lifetime, help="How long the key is valid. Default: until it is revoked."),
    ] = None,
) -> None:
    """Create a key and print it, and nothing else.

    The key is shown only once: the database stores its hash.
    """
    from rollwave.store import access

    typer.echo(with_pool(lambda pool: access.create(pool, tenant, role, name=name, expires_in=expires_in)))


@app.command("list", epilog=examples("rollwave apikey list --tenant demo"))
def list_(tenant: TenantOption, output: Output = Format.TABLE) -> None:
    """List a tenant's keys, without their secrets."""
    from rollwave.store import access

    keys = with_pool(lambda pool: access.list_keys(pool, tenant))
    document = [{name: _plain(value) for name, value in asdict(key).items()} for key in keys]
    if printed(document, output, (key.key_id for key in keys)):
        return
    table(
        ("KEY ID", "NAME", "ROLE", "CREATED AT", "EXPIRES AT", "REVOKED AT"),
        [[_plain(value) for value in astuple(key)] for key in keys],
        empty=f"No keys for tenant {tenant}.",
    )


@app.command(epilog=examples("rollwave apikey revoke 0123456789abcdef --tenant demo"))
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="The id of the key, from `rollwave apikey list`.")],
    tenant: TenantOption,
) -> None:
    """Revoke a key. It stops working immediately."""
    from rollwave.store import access

    if key_id.startswith("rollwave."):
        raise InvalidInput(
            "this is a whole key; the command needs the id of the key",  # the key is not repeated: it is a secret
            hint=f"`rollwave apikey list --tenant {tenant}` shows the ids. The id is the second-last part of the key.",
        )

    with_pool(lambda pool: access.revoke(pool, tenant, key_id))
    say(f"key {key_id} is revoked")


def _plain(value: object) -> object:
    from datetime import datetime

    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
