"""Files that describe a campaign, for `rollwave campaign create -f`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rollwave.errors import InvalidInput

RULES: Mapping[str, str] = MappingProxyType(
    {
        "strategy": "rollout_strategy",
        "rate": "rollout_rate",
        "abort_threshold": "abort_threshold",
        "abort_min_completed": "abort_min_completed",
        "canary_percent": "canary_percent",
        "max_in_flight": "max_in_flight",
        "progress_timeout": "progress_timeout",
        "max_attempts": "max_attempts",
    }
)
"""The API's names of the rules that a file may have instead of a policy, by their keys in the file."""

_KEYS = ("name", "firmware", "group", "policy", *RULES)


def read_campaign(file: str) -> dict[str, Any]:
    """Read a file; ``-``: standard input. In the answer, rules have the API's names.

    ``policy`` is a document, or the name of a stored policy. A path begins with ``./`` and is relative to the file.

    Raises:
        InvalidInput: the file cannot be read, is not YAML or JSON, or has an unknown key.
    """
    from rollwave.cli.policy_text import read_source

    source = read_source(file)
    found = _mapping(source.text, source.name)
    for key in found:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1)
            known = f"did you mean {near[0]}?" if near else f"Known keys: {', '.join(_KEYS)}."
            raise InvalidInput(f"{source.name}: unknown key {key}", hint=known)
    rules = [key for key in found if key in RULES]
    if "policy" in found and rules:
        raise InvalidInput(
            f"{source.name}: a policy takes the place of every other rule",
            hint=f"Leave out either policy, or {', '.join(rules)}.",
        )
    named = {key: _text(source.name, key, found[key]) for key in ("name", "firmware", "group") if key in found}
    return named | {RULES[key]: found[key] for key in rules} | _policy(found, Path(file).parent)


def _mapping(text: bytes, name: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InvalidInput(f"{name}{where}: {getattr(error, 'problem', None) or 'it is not YAML'}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{name} does not describe a campaign", hint=f"It needs keys: {', '.join(_KEYS[:4])}.")
    return found


def _text(name: str, key: str, value: object) -> str:
    if isinstance(value, float):
        # YAML reads 2.10 as 2.1: the version would silently be another one.
        raise InvalidInput(f"{name}: {key} is a number", hint=f'Put it in quotes: {key}: "{value}".')
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise InvalidInput(f"{name}: {key} must be a text")
    return str(value)


def _policy(found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if (policy := found.get("policy")) is None:
        return {}
    if isinstance(policy, str) and policy.startswith("./"):
        from rollwave.cli.policy_text import read_source
        from rollwave.domain.policy.document.emit import to_data

        policy = to_data(read_source(str(folder / policy)).parse())
    return {"policy": policy}
