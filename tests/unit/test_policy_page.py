"""The page about policies: its examples are valid, and together they use every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.problems import parse
from rollwave.domain.policy.document.text import Format
from scripts.policy_reference import keys

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "policy.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def used(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        yield from data
    for each in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from used(each)


def test_every_example_is_valid_and_every_key_has_one() -> None:
    documents = [to_data(parse(each, Format.YAML)) for each in EXAMPLES]
    assert set(keys()) <= {key for document in documents for key in used(document)}
