"""The rules of a campaign that `rollwave campaign create` creates: flat ones, or a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollwave.cli.output import Format, print_json, say
from rollwave.cli.policy_advice import show_advice
from rollwave.errors import InvalidInput


def rules_of(policy: str | None, flat: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of the request: a policy, or those flat rules that were given.

    Raises:
        InvalidInput: both were given, or the policy breaks a rule.
    """
    given = {key: value for key, value in flat.items() if value is not None}
    if policy is None:
        return given
    if given:
        raise InvalidInput(
            "--policy takes the place of every other rule",
            hint=f"Leave out either --policy, or what sets {', '.join(given)}.",
        )
    from rollwave.cli.policy_text import is_file, read_source
    from rollwave.domain.policy.document.emit import to_data

    return {"policy": to_data(read_source(policy).parse()) if is_file(policy) else policy}


def print_preview(preview: Mapping[str, Any], output: Format) -> None:
    """Print the answer of a dry run."""
    if output is Format.JSON:
        print_json(preview)
        return
    from rollwave.domain.policy.document.emit import to_yaml

    show_advice(preview, preview["policy"])
    say(to_yaml(preview["policy"]).rstrip("\n"))
