"""Expressions and constants that several SQL statements repeat are the same in all of them, and in Python."""

from __future__ import annotations

import re
from importlib.resources import files

from rollwave.domain.ids import MAX_ID_CHARACTERS
from rollwave.store.counters import NOT_COUNTED_OFFSET
from rollwave.store.queries import load

COUNTED = "c.pending + c.downloading + c.installing + c.succeeded + c.failed IS NOT NULL AND c.skipped >= 0"
"""Whether a campaign's rows have been counted, and its counters are therefore right."""

SETS_THE_OFFSET = "counters.begin_counting"


def every_statement() -> dict[str, str]:
    nouns = (path.name.removesuffix(".sql") for path in (files("rollwave.store") / "sql").iterdir())
    return {f"{noun}.{name}": sql for noun in nouns for name, sql in load(noun).items()}


def test_every_statement_decides_by_the_same_expression_whether_a_campaign_is_counted() -> None:
    found = {
        name: re.findall(r".*(?<!moved\.)skipped [<>]=? 0.*", sql)
        for name, sql in every_statement().items()
        if name != SETS_THE_OFFSET
    }
    lines = {name: each for name, each in found.items() if each}
    assert set(lines) == {"campaigns.get", "views.campaign", "counters.count_pending"}
    assert [name for name, each in lines.items() if not all(COUNTED in line for line in each)] == []


def test_the_offset_of_an_uncounted_campaign_is_written_in_no_statement() -> None:
    statements = every_statement()
    assert [name for name, sql in statements.items() if str(NOT_COUNTED_OFFSET) in sql] == []
    assert "- $3" in statements[SETS_THE_OFFSET]


def test_the_offset_exceeds_any_campaign_and_fits_the_column() -> None:
    largest_campaign = 100_000_000
    assert largest_campaign < NOT_COUNTED_OFFSET < 2**31 - largest_campaign


def test_every_statement_limits_the_length_of_an_id_as_python_does() -> None:
    found = {
        name: set(re.findall(r"length\(\w*\.?device_id\) <= (\d+)", sql)) for name, sql in every_statement().items()
    }
    lengths = {name: each for name, each in found.items() if each}
    assert set(lengths) == {"budgets.candidates", "executions.claim", "views.claimed_and_pending", "views.device"}
    assert all(each == {str(MAX_ID_CHARACTERS)} for each in lengths.values())
