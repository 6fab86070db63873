"""`rollwave context`: the installations that an operator works with, each a URL and a key under a name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollwave.cli.complete import context_names
from rollwave.cli.examples import examples
from rollwave.cli.output import Format, Output, complain, print_facts, printed, say, table
from rollwave.domain.ids import ID_RULE, is_valid_id
from rollwave.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from rollwave.client.contexts import Context, Contexts

app = typer.Typer(no_args_is_help=True)


def _checked_name(text: str) -> str:
    if not is_valid_id(text):
        raise typer.BadParameter(f"a context's name is {ID_RULE}")
    return text


NewName = Annotated[str, typer.Argument(metavar="NAME", help="A name of your choice.", callback=_checked_name)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The context's name.", autocompletion=context_names)]


@app.command(
    epilog=examples(
        "rollwave context add prod --url https://ota.example --key-file prod.key",
        "rollwave apikey create --tenant demo --role operator | rollwave context add local --url http://127.0.0.1:8080",
    )
)
def add(
    name: NewName,
    url: Annotated[str, typer.Option(metavar="URL", help="The URL of the API, such as https://ota.example.")],
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file with the key. Default: ask on a terminal, else standard input."),
    ] = None,
    use: Annotated[bool, typer.Option("--use", help="Make it the current context.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a context of this name.")] = False,
) -> None:
    """Add a context. The first one becomes the current one.

    The key is not an argument, because other users of this machine can see
    those. It is stored in `contexts.json` below ~/.config/rollwave, or
    XDG_CONFIG_HOME, which only you can read. It is never printed.
    """
    from rollwave.client.address import base_url
    from rollwave.client.contexts import Context

    before = _read()
    after = before.add(Context(name, base_url(url), _key(key_file)), use=use, replace=force)
    after.write()
    say(f"Added the context {name}." + (" It is the current one." if after.current == name else ""))


def _key(file: Path | None) -> str:
    if file is not None:
        try:
            key = file.read_text("utf-8")
        except (OSError, UnicodeError) as error:
            raise InvalidInput(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'no text'}") from error
    elif sys.stdin.isatty():
        key = typer.prompt("API key", hide_input=True, err=True)
    else:
        key = sys.stdin.readline()
    key = key.strip()
    if not key or not key.isprintable() or " " in key:
        raise InvalidInput("this is not a key", hint="`rollwave apikey create` prints one. It is a single word.")
    return key


@app.command(epilog=examples("rollwave context use prod"))
def use(name: Name) -> None:
    """Make a context the current one, which commands use."""
    after = _read().use(name)
    after.write()
    present = after.by_name[name]
    say(f"Commands now use {name}: {present.url}{_of_tenant(present)}.")


@app.command("list", epilog=examples("rollwave context list"))
def list_(output: Output = Format.TABLE) -> None:
    """List the contexts, without their keys."""
    contexts = _read()
    rows = [_shown(each, contexts) for each in contexts.by_name.values()]
    if printed({"contexts": rows}, output, contexts.by_name):
        return
    table(
        ("CURRENT", "NAME", "URL", "TENANT", "KEY ID"),
        [("*" if row["current"] else "", row["name"], row["url"], row["tenant"], row["key_id"]) for row in rows],
        empty="No contexts. Add one: rollwave context add",
    )


@app.command(epilog=examples("rollwave context show", "rollwave context show prod -o json"))
def show(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Default: the current one.", autocompletion=context_names),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show a context, without its key."""
    contexts = _read()
    found = contexts.present() if name is None else contexts.get(name)
    if found is None:
        raise NotFound("there is no current context", hint="Choose one: rollwave context use NAME.")
    row = _shown(found, contexts)
    if not printed(row, output, [found.name]):
        print_facts((key.replace("_", " "), "yes" if value is True else value) for key, value in row.items() if value)


@app.command(epilog=examples("rollwave context remove prod"))
def remove(name: Name) -> None:
    """Remove a context and its key from this machine. The key stays valid: `rollwave apikey revoke` ends it."""
    before = _read()
    before.remove(name).write()
    say(f"Removed the context {name}." + (" There is no current context now." if before.current == name else ""))


def _read() -> Contexts:
    from rollwave.client.contexts import Contexts
    from rollwave.settings import config_folder

    found = Contexts.read(config_folder())
    if found.readable_by_others:
        complain(f"warning: other users of this machine can read {found.path}. Run: chmod 600 {found.path}")
    return found


def _shown(context: Context, contexts: Contexts) -> dict[str, Any]:
    return {
        "name": context.name,
        "current": context.name == contexts.current,
        "url": context.url,
        "tenant": context.tenant or None,
        "key_id": context.key_id or None,
    }


def _of_tenant(context: Context) -> str:
    return f", tenant {context.tenant}" if context.tenant else ""
