"""Every rule of the policy document: which documents it accepts, and what it says about the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rollwave.domain.policy.document.located import Position
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, parse, parse_data
from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.document.units import Share

HERE = Path(__file__).parent


def document(text: str) -> PolicyDocument:
    return parse(text, Format.YAML)


def said(text: str) -> str:
    with pytest.raises(InvalidPolicy) as caught:
        document(text)
    (problem,) = caught.value.problems
    return str(problem)


EXAMPLE = (HERE / "policy_example.yaml").read_text()


def test_the_example_is_read() -> None:
    found = document(EXAMPLE)
    canary, early, rest = found.waves
    assert (canary.size, early.size, rest.size) == (50, Share.percent(5), None)
    assert canary.gate is not None
    assert (canary.gate.soak, canary.gate.approval) == (7200.0, True)
    assert found.pace is not None
    assert found.pace.bytes is not None
    assert found.pace.bytes.in_flight == 200 * 2**30
    assert found.schedule is not None
    assert found.schedule.windows[0].duration == 7200.0


def test_every_key_is_optional_and_names_have_defaults() -> None:
    assert document("{}") == PolicyDocument()
    found = document("waves: [{size: 1}, {}]\nguardrails: [{}]\nbudgets: [{per: site, max_in_flight: 1}]")
    assert [wave.name for wave in found.waves] == ["wave-1", "wave-2"]
    assert found.guardrails is not None
    assert (found.guardrails[0].name, found.guardrails[0].threshold) == ("guardrail-1", Share.percent(10))


def test_no_guardrails_and_none_given_differ() -> None:
    assert document("guardrails: []").guardrails == ()
    assert document("{}").guardrails is None


def cases() -> list[tuple[str, str]]:
    """Documents and what is wrong with each, from a file: the document, then a line that begins with ``!``."""
    text = re.sub(r"^#.*\n", "", (HERE / "policy_problems.txt").read_text(), flags=re.MULTILINE)
    blocks = [each.strip() for each in text.split("\n\n") if each.strip()]
    return [(before, problem) for before, _, problem in (each.rpartition("\n! ") for each in blocks)]


@pytest.mark.parametrize(("text", "problem"), cases())
def test_a_document_that_breaks_a_rule_is_refused_where_it_does(text: str, problem: str) -> None:
    found = said(text)
    assert found == problem or (problem.endswith("…") and found.startswith(problem[:-1]))


def many(item: str, number: int) -> str:
    return "[" + ", ".join(item.replace("%d", str(each)) for each in range(number)) + "]"


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("waves: %s", 100),
        ("guardrails: %s", 16),
        ("budgets: %s", 4),
        ("schedule: {windows: %s}", 32),
        ("guardrails: [{codes: %s}]", 64),
        ("guardrails: [{scope: segment, per: %s}]", 3),
    ],
)
def test_lists_have_limits(text: str, most: int) -> None:
    item = {
        "waves: %s": "{name: w%d, select: a == b}",
        "guardrails: %s": "{}",
        "budgets: %s": "{per: site, max_in_flight: 1}",
        "schedule: {windows: %s}": "{kind: deny, start: 2027-01-11T08:00:00Z, end: 2027-03-11T08:00:00Z}",
        "guardrails: [{codes: %s}]": "E_%d",
        "guardrails: [{scope: segment, per: %s}]": "label%d",
    }[text]
    document(text.replace("%s", many(item, most)))
    assert f"has {most + 1} items, and at most {most} are allowed" in said(text.replace("%s", many(item, most + 1)))


def test_every_problem_is_named_in_the_order_of_the_text() -> None:
    with pytest.raises(InvalidPolicy) as caught:
        document("pace: {per_minute: 0}\nwavs: []\nretry: {max_attempts: 0}\n")
    assert [each.position for each in caught.value.problems] == [Position(1, 20), Position(2, 1), Position(3, 23)]
    assert str(caught.value).endswith("(and 2 more)")
    assert caught.value.field == "policy"


def test_json_is_checked_by_the_same_rules_with_positions() -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse('\ufeff{\n\t"pace": {"per_minute":\t0}}'.encode(), Format.JSON)
    assert str(caught.value.problems[0]).startswith("line 2, column 25: pace.per_minute: must be")
    with pytest.raises(InvalidPolicy, match="the document is nested deeper than 10"):
        parse('{"a": ' + "[" * 12 + "]" * 12 + "}", Format.JSON)
    assert parse('{"pace": {"per_minute": 5}}', Format.JSON) == document("pace: {per_minute: 5}")


def test_an_error_in_a_selector_has_the_place_where_it_is() -> None:
    said = "waves[0].select: the selector cannot be read: '=' is not expected here; expected: a value"

    def problem(text: str, form: Format = Format.JSON) -> str:
        with pytest.raises(InvalidPolicy) as caught:
            parse(text, form)
        return str(caught.value.problems[0])

    assert problem("waves:\n- select: site = = north\n- {}", Format.YAML) == f"line 2, column 18: {said}"
    assert problem('{"waves": [{"select": "site = = north"}, {}]}') == f"line 1, column 31: {said}"
    # The position in the document does not show it: escaped characters, or no text at all.
    escaped = problem('{"waves": [{"select": "s\\u0069te = = north"}, {}]}')
    assert escaped == f"line 1, column 23: {said}, in line 1, column 8 of this text"
    with pytest.raises(InvalidPolicy) as caught:
        parse_data({"waves": [{"select": "site == north or\nname like '*a'"}, {}]})
    assert str(caught.value.problems[0]) == (
        "waves[0].select: the selector cannot be read: the pattern '*a' begins with *, so every device would have to "
        "be read, in line 2, column 11 of this text (Add an equality: site == north and name like '*-a'.)"
    )


def test_data_without_a_text_is_checked_by_the_same_rules() -> None:
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    for data, message in (
        ({"wavs": []}, "wavs: unknown key (did you mean waves?)"),
        ({"pace": None}, "pace: has no value (leave the key out for its default)"),
        ({"order": "a\x00"}, "order: has a NUL character or half of a surrogate pair"),
        ({"\ud800": 1}, "has a key with a NUL character or half of a surrogate pair"),
        ({"order": "x" * 70_000}, "the document has 70,013 bytes, and at most 65,536 are allowed"),
        ({"pace": {"per_minute": 10**40}}, "pace.per_minute: must be a whole number from 1 to 2,147,483,647"),
        ({"waves": deep}, "the document is nested deeper than 10"),
        ("standard", "must be a mapping of keys to values"),
    ):
        with pytest.raises(InvalidPolicy) as caught:
            parse_data(data)
        assert re.sub(r"^[\w\[\]0-9.]+: (the document)", r"\1", str(caught.value.problems[0])) == message
    assert parse_data({"pace": {"per_minute": 5.0}}).pace == document("pace: {per_minute: 5}").pace
