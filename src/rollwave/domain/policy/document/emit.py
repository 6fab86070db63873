"""Writes a policy document: as plain data in its canonical form, and as YAML that reads back as the same document.

The canonical form has the keys that were given and no others, in the order of the format.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from rollwave.domain.policy.document.located import Plain
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.yaml_text import CORE_PATTERNS


def to_data(document: PolicyDocument) -> dict[str, Any]:
    """The document as data of JSON."""
    return document.model_dump(mode="json", by_alias=True, exclude_unset=True)


def to_yaml(data: Plain) -> str:
    """YAML of plain data. Text that YAML 1.1 or 1.2 could take for something else is quoted."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


for _pattern in CORE_PATTERNS:
    _Dumper.add_implicit_resolver("tag:rollwave,not-text", re.compile(f"(?:{_pattern})$"), None)
