"""`rollwave quarantine`: messages from devices that could not be read. Works on the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollwave.cli.database import with_pool
from rollwave.cli.examples import examples
from rollwave.cli.output import Format, Limit, Output, printed, say, table
from rollwave.errors import InvalidInput

if TYPE_CHECKING:
    from rollwave.store.database import Pool
    from rollwave.store.quarantine import Kept

app = typer.Typer(no_args_is_help=True)

TenantOption = Annotated[str, typer.Option("--tenant", metavar="T", help="Tenant whose devices sent the messages.")]

_SHOWN = 200  # characters of a payload in a table


@app.command("list", epilog=examples("rollwave quarantine list --tenant demo"))
def list_(
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="T", help="Tenant whose devices sent the messages. Default: all.")
    ] = None,
    limit: Limit = 50,
    output: Output = Format.TABLE,
) -> None:
    """List the newest messages that could not be read, and the reason.

    The newest 1000 messages of each tenant are kept, and the first 4 KB of each.
    The table shows the beginning, -o json everything that is kept. A payload that
    is not UTF-8 is shown in hex. To list all tenants, the database login must
    bypass row-level security.
    """
    from rollwave.store import quarantine

    async def of_all(pool: Pool) -> tuple[list[dict[str, Any]], int]:
        found, total = [], 0
        for each in [tenant] if tenant is not None else await quarantine.tenants(pool):
            samples, number = await quarantine.newest(pool, each, limit)
            found += [_message(each, sample) for sample in samples]
            total += number
        return sorted(found, key=lambda message: message["received_at"], reverse=True)[:limit], total

    messages, total = with_pool(of_all)
    if printed({"messages": messages, "total": total}, output, (each["id"] for each in messages)):
        return
    table(
        ("RECEIVED", "TENANT", "DEVICE", "REASON", "PAYLOAD"),
        [
            (each["received_at"], each["tenant_id"], each["device_id"], each["reason"], _beginning(each))
            for each in messages
        ],
        empty=f"No messages kept{f' for tenant {tenant}' if tenant else ''}.",
        total=total,
    )


@app.command(epilog=examples("rollwave quarantine clear --tenant demo --yes"))
def clear(
    tenant: TenantOption, yes: Annotated[bool, typer.Option("--yes", "-y", help="Confirm the deletion.")] = False
) -> None:
    """Delete the messages of a tenant."""
    from rollwave.store import quarantine

    if not yes:
        raise InvalidInput("this deletes messages and cannot be undone", hint="Add --yes to confirm.")
    gone = with_pool(lambda pool: quarantine.clear(pool, tenant))
    say(f"{gone} message{'s' * (gone != 1)} deleted")


def _message(tenant: str, sample: Kept) -> dict[str, Any]:
    encoding, payload = sample.readable
    return {
        "id": sample.id,
        "tenant_id": tenant,
        "device_id": sample.device_id,
        "received_at": sample.received_at.isoformat(timespec="seconds"),
        "reason": sample.reason,
        "encoding": encoding,
        "payload": payload,
        "cut": sample.cut,
    }


def _beginning(message: dict[str, Any]) -> str:
    shown: str = message["payload"][:_SHOWN]
    more = "…" if message["cut"] or len(shown) < len(message["payload"]) else ""
    return f"{'0x' if message['encoding'] == 'hex' else ''}{shown}{more}"
