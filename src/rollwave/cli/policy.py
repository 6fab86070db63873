"""`rollwave policy`: check, show, edit and store policies."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rollwave.cli.client import CampaignArgument, connect, over_api
from rollwave.cli.examples import examples
from rollwave.cli.output import Column, Format, Limit, Output, complain, print_json, print_page, say
from rollwave.cli.policy_advice import show_advice, show_advice_on
from rollwave.domain.ids import in_path
from rollwave.errors import InvalidInput, RollwaveError

if TYPE_CHECKING:
    from rollwave.cli.policy_text import Source
    from rollwave.client.api import Api

app = typer.Typer(no_args_is_help=True)

YAML_TYPE = "application/yaml"
FileArgument = Annotated[str, typer.Argument(metavar="FILE|-", help="YAML, or JSON if it ends with .json; -: stdin.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of a stored policy.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept with the revision.")]


@app.command(
    epilog=examples("rollwave policy check night.yaml", "rollwave policy show careful | rollwave policy check -")
)
def check(file: FileArgument) -> None:
    """Check a policy without a server.

    Each problem is shown with its line, and with a suggestion where there is
    one. Exits with 1 if there is any. Warnings do not change the exit code. For
    a policy with windows, the next five openings are shown, for devices without
    a time zone.

    Whether devices have the labels that the policy names is checked by
    `rollwave campaign create --dry-run`, which shows the size of each wave.
    """
    from rollwave.cli.policy_text import read_source

    source = read_source(file)
    show_advice_on(source.parse())
    say(f"{source.name} is valid")


@app.command(epilog=examples("rollwave policy schema > rollwave-policy.schema.json"))
def schema() -> None:
    """Print the JSON Schema of policies, for an editor."""
    from rollwave.domain.policy.document.schema import json_schema

    print_json(json_schema())


@app.command(epilog=examples("rollwave policy show 7", "rollwave policy show careful > my-policy.yaml"))
@over_api
def show(
    policy: Annotated[str, typer.Argument(metavar="CAMPAIGN|NAME", help="A campaign's id, or the name of a policy.")],
    revision: Annotated[int | None, typer.Option(min=1, help="An earlier revision of a campaign's policy.")] = None,
) -> None:
    """Print the policy of a campaign, a preset or a stored policy, as YAML."""
    with connect() as api:
        text, _ = api.get_text(_path(policy), format="yaml", revision=revision)
    say(text.rstrip("\n"))


def _path(policy: str) -> str:
    return f"/ota/campaigns/{policy}/policy" if policy.isdecimal() else f"/ota/policies/{in_path(policy)}"


@app.command(
    epilog=examples(
        'rollwave policy edit 7 --reason "slower at night"', "rollwave policy edit 7 --file slower.yaml --yes"
    )
)
@over_api
def edit(
    campaign_id: CampaignArgument,
    file: Annotated[str | None, typer.Option(metavar="FILE|-", help="The new policy, instead of an editor.")] = None,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Change the policy of a campaign, in your editor ($VISUAL or $EDITOR).

    The new policy is checked first. Then its difference, warnings and the next
    five openings of its windows are shown, and you are asked. It is in force at
    the next claim. If somebody else has changed the policy in the meantime,
    nothing is changed.
    """
    path = f"/ota/campaigns/{campaign_id}/policy"
    with connect() as api:
        before, tag = api.get_text(path, format="yaml")
        checked = _edited(api, path, before, tag, file)
        if checked is None or checked.text == before:
            say("nothing was changed")
            return
        for line in _difference(before, checked.text, "in force", "new"):
            say(line)
        show_advice(checked.answer, checked.answer["policy"])
        if not yes and not _confirmed(campaign_id):
            raise RollwaveError("nothing was changed")
        answer = api.put_text(path, checked.text.encode(), YAML_TYPE, if_match=tag, reason=reason)
    say(f"campaign {campaign_id} follows revision {answer['revision']} of its policy")


@dataclass(frozen=True, slots=True)
class _Checked:
    """A policy in its canonical form, which the server would accept, and the answer of its dry run."""

    text: str
    answer: Mapping[str, Any]


def _edited(api: Api, path: str, before: str, tag: str | None, file: str | None) -> _Checked | None:
    """The changed policy. None: there is no change."""
    from rollwave.cli.editor import edited
    from rollwave.cli.policy_text import Source, read_source
    from rollwave.domain.policy.document.text import Format as TextFormat

    text = before.encode()
    while True:
        source = (
            Source("the policy", edited(text, suffix=".yaml"), TextFormat.YAML) if file is None else read_source(file)
        )
        text = source.text
        if text == before.encode():
            return None
        try:
            return _checked(api, path, source, tag)
        except InvalidInput as error:
            if file is not None or not sys.stdin.isatty():
                raise
            complain(f"error: {error}")
            if not typer.confirm("Edit it again?", default=True, err=True):
                return None


def _checked(api: Api, path: str, source: Source, tag: str | None) -> _Checked:
    from rollwave.domain.policy.document.emit import to_data, to_yaml

    text = to_yaml(to_data(source.parse()))
    answer = api.put_text(path, text.encode(), YAML_TYPE, if_match=tag, dry_run="true")
    return _Checked(text, answer)


def _confirmed(campaign_id: int) -> bool:
    if not sys.stdin.isatty():
        raise InvalidInput("there is no terminal to ask for confirmation", hint="Add --yes to confirm.")
    return typer.confirm(f"Change the policy of campaign {campaign_id}?", err=True)


@app.command(epilog=examples("rollwave policy diff 7", "rollwave policy diff 7 --revision 1"))
@over_api
def diff(
    campaign_id: CampaignArgument,
    revision: Annotated[
        int | None,
        typer.Option(min=1, help="The revision to compare with the one in force.  [default: the one before]"),
    ] = None,
) -> None:
    """Show what has changed in a campaign's policy since an earlier revision."""
    path = f"/ota/campaigns/{campaign_id}/policy"
    with connect() as api:
        present = api.get(path)["revision"]
        if present is None:
            raise RollwaveError(f"campaign {campaign_id} follows its flat columns: there are no revisions")
        earlier = max(1, present - 1) if revision is None else revision
        before, _ = api.get_text(path, format="yaml", revision=earlier)
        after, _ = api.get_text(path, format="yaml", revision=present)
    lines = _difference(before, after, f"revision {earlier}", f"revision {present}")
    for line in lines or [f"revision {earlier} and revision {present} do not differ"]:
        say(line)


def _difference(before: str, after: str, old: str, new: str) -> list[str]:
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), old, new, lineterm=""))


@app.command("list", epilog=examples("rollwave policy list"))
@over_api
def list_(limit: Limit = 50, output: Output = Format.TABLE) -> None:
    """List the stored policies, and the presets, which every tenant has."""
    with connect() as api:
        answer = api.get("/ota/policies", limit=limit)
    if output is Format.TABLE:
        complain(f"Presets: {', '.join(answer['presets'])}")
    columns: dict[str, Column] = {
        "NAME": "name",
        "CHANGED": "changed_at",
        "BY": lambda row: row.get("changed_by_name") or row["changed_by"] or "",
    }
    print_page(answer, output, "policies", columns, empty="No stored policies. Store one: rollwave policy store")


@app.command(epilog=examples("rollwave policy store night night.yaml"))
@over_api
def store(name: NameArgument, file: FileArgument) -> None:
    """Store a policy under a name, or replace it.

    Campaigns that were created with it keep their own copy.
    """
    from rollwave.cli.policy_text import read_source
    from rollwave.domain.policy.document.emit import to_data

    data = to_data(read_source(file).parse())
    with connect() as api:
        answer = api.put_text(f"/ota/policies/{in_path(name)}", json.dumps(data).encode(), "application/json")
    show_advice(answer, data)
    say(f"stored the policy {name}")


@app.command(epilog=examples("rollwave policy delete night"))
@over_api
def delete(name: NameArgument) -> None:
    """Delete a stored policy. Campaigns that were created with it keep their own copy."""
    with connect() as api:
        api.delete(f"/ota/policies/{in_path(name)}")
    say(f"deleted the policy {name}")
