"""The tables of docs/reference/policy.md, from the JSON Schema that is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from rollwave.domain.policy.document import fields, units
from rollwave.domain.policy.document.schema import json_schema
from scripts.policy_examples import EXAMPLES

PARTS: Mapping[str, str] = {
    "document": "",
    "wave": "WaveRule",
    "gate": "GateRule",
    "pace": "PaceRule",
    "ramp": "Ramp",
    "bytes": "BytesRule",
    "budget": "Budget",
    "guardrail": "GuardrailRule",
    "retry": "RetryRule",
    "deadlines": "Deadlines",
    "schedule": "ScheduleRule",
    "window": "Window",
}
"""The definition of each table, by the table's name. Empty: the document itself."""

_WORDS: Mapping[str, str] = {
    units.DURATION_PATTERN: "duration",
    units.SHARE_PATTERN: "share",
    units.SIZE_PATTERN: "size",
    units.TIME_PATTERN: "time",
    fields.NAME_PATTERN: "name",
    fields.KEY_PATTERN: "key of a label",
    fields.CODE_PATTERN: "code",
}


_LANGUAGES: Mapping[str, str] = {
    "select": "selector",
    "cron": "cron expression",
    "time_zone": "time zone",
    "order": "`hash`, `id`, `label:<key>`",
}
"""What the texts of these keys are."""


def tables() -> dict[str, Callable[[], str]]:
    """What makes each table, by the table's name."""
    return {name: partial(table, name) for name in PARTS}


def table(name: str) -> str:
    """The keys of one mapping: what each takes, its default, its meaning, and an example."""
    schema, part = json_schema(), PARTS[name]
    found = schema["$defs"][part] if part else schema
    needed = set(found.get("required", ()))
    rows = [
        f"| `{key}` | {_LANGUAGES.get(key) or _kind(value, schema)} | {_default(key, value, needed)} "
        f"| {_meaning(value, schema)} | {_example(name, key)} |"
        for key, value in found["properties"].items()
    ]
    return "\n".join(["| key | takes | default | meaning | for example |", "|---|---|---|---|---|", *rows])


def _example(name: str, key: str) -> str:
    text, does = EXAMPLES[name][key]
    return f"`{text}`: {does}"


def keys() -> Iterator[str]:
    """Every key of the format."""
    schema = json_schema()
    for part in PARTS.values():
        yield from (schema["$defs"][part] if part else schema)["properties"]


def _default(key: str, value: Mapping[str, Any], needed: set[str]) -> str:
    if key in needed:
        return "must be given"
    if "default" not in value:
        _, told, words = value.get("description", "").partition("Default: ")
        return words.rstrip(".") if told else "none"
    default = value["default"]
    return "all" if isinstance(default, list) else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _meaning(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    # The description of a key is left out where it is that of the mapping behind it.
    text: str = value.get("description") or schema["$defs"][_referred(value)]["description"]
    return text.partition(" Default: ")[0] if " Default: " in text else text


def _referred(value: Mapping[str, Any]) -> str:
    """The name of the definition that a key refers to, or empty. Pydantic before 2.9 wraps it, beside a description."""
    of = value.get("allOf", [value])[0]
    return str(of.get("$ref", "")).rpartition("/")[2]


def _kind(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if name := _referred(value):
        return _kind(schema["$defs"][name], schema)
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "anyOf" in value:
        return "devices or share"
    if "const" in value:
        return f"`{value['const']}`"
    return _KINDS[value["type"]](value, schema)


def _of_list(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    most = f", at most {value['maxItems']}" if "maxItems" in value else ""
    item = _kind(value["items"], schema)
    return f"list of {'mappings' if item == 'mapping' else item}{most}"


def _of_number(value: Mapping[str, Any], _schema: Mapping[str, Any]) -> str:
    least, most = value.get("minimum"), value.get("maximum")
    if least is None:
        return f"number over {value['exclusiveMinimum']:g} and under {value['exclusiveMaximum']:g}"
    whole = "whole number" if value["type"] == "integer" else "number"
    return f"{whole} of {least:g} or more" if most == fields.MAX_COUNT else f"{whole} from {least:g} to {most:g}"


def _of_text(value: Mapping[str, Any], _schema: Mapping[str, Any]) -> str:
    return _WORDS.get(value.get("pattern", ""), "text")


_KINDS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
    "object": lambda _value, _schema: "mapping",
    "array": _of_list,
    "integer": _of_number,
    "number": _of_number,
    "boolean": lambda _value, _schema: "`true`, `false`",
    "string": _of_text,
}
