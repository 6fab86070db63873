"""The rules of a campaign that `rollwave campaign create` creates: flat ones, or a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rollwave.cli.output import Format, complain, printed, say
from rollwave.cli.policy_advice import show_advice
from rollwave.client.text import visible
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
    """Print the answer of a dry run: the policy on standard output, and the rest on standard error."""
    if printed(preview, output):
        return
    from rollwave.domain.policy.document.emit import to_yaml

    show_advice(preview, preview["policy"])
    for line in _effect(preview):
        complain(line)
    say(to_yaml(preview["policy"]).rstrip("\n"))


def _effect(preview: Mapping[str, Any]) -> Iterator[str]:
    """What the policy would do to the devices."""
    waves, total = preview["waves"], sum(each["devices"] for each in preview["waves"])
    names = max(len(each["name"]) for each in waves)
    digits = len(f"{total:,}")
    for number, each in enumerate(waves, 1):
        share = f"  {each['devices'] / total:6.1%}".replace("%", " %") if total else ""
        yield f"  {number}. {each['name']:<{names}}  {each['devices']:>{digits},} devices{share}"
    if segments := preview["segments"]:
        yield f"Guardrails and windows judge {segments:,} segment{'s' * (segments != 1)} of devices."
    exposed = preview["exposed_devices"]
    if exposed is None:
        yield "No guardrail acts before all devices are sent to."
    else:
        yield f"Up to {exposed:,} device{'s are' if exposed != 1 else ' is'} sent to before a guardrail acts."
    for each in preview.get("also_in", ()):
        yield f"{visible(each['text'])}."
    if told := preview.get("at_start"):  # the API of an earlier version has none
        yield f"If it is started now: {visible(told['text'])}"
    yield "Nothing was created."
