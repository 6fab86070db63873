"""How a campaign is drawn for an operator, from the server's overview."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rollwave.client.bars import Bar, Sparkline, StateBar, gauge, shared_out
from rollwave.client.events import Event
from rollwave.client.follow import Look
from rollwave.client.progress import Snapshot, WaveLine, counts
from rollwave.client.timeline import Timeline
from rollwave.client.view import Campaign, around_the_present, in_one_line
from rollwave.domain.execution import ExecutionStatus

OVERVIEW: dict[str, Any] = {
    "campaign_id": 7,
    "name": "[bold]spring\x1b[2J",
    "status": "RUNNING",
    "status_reason": None,
    "version": "2.4.1",
    "from_versions": [{"version": "2.3.0", "devices": 90}],
    "headline": {"level": "watch", "text": "Guardrail boots: 3 more failures"},
    "devices": {"total": 100, "SUCCESS": 47, "FAILED": 3, "PENDING": 50},
    "rules": "canary 10, then the rest · daily 01:00\N{EN DASH}05:00 UTC",
    "rate_per_minute": 5.25,
    "forecast": {"text": "done between 14:10 and 14:40 UTC"},
    "waves": [
        {"name": "canary", "size": 10, "sent": 10, "succeeded": 9, "failed": 1, "state": "passed", "needs_role": None,
         "text": "canary (1 of 2): passed", "number": 0},
        {"name": "rest", "size": 90, "sent": 40, "succeeded": None, "failed": None, "state": "awaiting_approval",
         "text": "rest (2 of 2): waits for an approval", "number": 1, "needs_role": "approver"},
    ],
    "guardrails": [{"used": 0.6, "tripped": False, "text": "boots: 3 of 50 failed"}],
    "causes": [{"devices": 3, "text": "E_BOOT · revision=B: 3 devices"}],
    "waiting": [{"devices": 50, "text": "wave rest waits for an approval"}],
}  # fmt: skip


def look(**changes: object) -> Look:
    document = OVERVIEW | changes
    return Look(document, Snapshot.read(document), [], Timeline(recent=[0.0, 1.0, 4.0]))


def drawn(shown: Look, *, columns: int = 90, events: Sequence[Event] = (), encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(width=columns, height=40, record=True, file=file, force_terminal=True)
    console.print(Campaign(shown, events))
    return console.export_text()


def test_all_that_the_server_says_is_drawn() -> None:
    seen = drawn(look(), columns=110)
    for expected in (
        "[bold]spring\\x1b[2J  2.3.0 → 2.4.1 · #7",
        "● RUNNING",
        "canary 10, then the rest · daily 01:00",
        "▲ Guardrail boots: 3 more failures",
        "✓ 47 SUCCESS   F 3 FAILED   P 50 PENDING",
        "canary (1 of 2): passed",
        "10 of 10 finished",
        "rest (2 of 2): waits for an approval; needs an approver",
        "40 of 90 sent",
        "boots: 3 of 50 failed",
        "▁▃█ 5.2 a minute",
        "done between 14:10 and 14:40 UTC",
        "E_BOOT · revision=B: 3 devices",
        "50 wave rest waits for an approval",
    ):
        assert expected in seen


WORDS = {"status", "state", "level", "needs_role"}
"""Keys whose values are words of the server."""


def hostile(value: Any) -> Any:
    """The document with a terminal escape at the beginning of every text that people or devices write."""
    if isinstance(value, dict):
        return {key: each if key in WORDS else hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return f"\x1b]0;owned\x07\x9b2J\r{value}" if isinstance(value, str) else value


def test_no_text_reaches_the_terminal_as_an_escape() -> None:
    at = "2027-01-11T08:00:00Z"
    failed = {"at": at, "event": "attempt_failed", "device_id": "\x1b[2J", "text": "\x1b[2J\x07", "detail": {}}
    for columns in (80, 140):
        seen = drawn(look(**hostile(OVERVIEW)), events=[Event.read(failed)], columns=columns)
        assert "owned" in seen
        assert not set(re.findall(r"[\x00-\x1f\x7f-\x9f]", seen)) - {"\n"}


@pytest.mark.parametrize("columns", [40, 80, 119, 120, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    assert max(len(line) for line in drawn(look(), columns=columns).splitlines()) <= columns


@pytest.mark.parametrize(
    ("status", "failed", "sign"),
    [("RUNNING", 0, "✓"), ("RUNNING", 1, "●"), ("COMPLETED", 0, "✓"), ("ABORTED", 0, "■"), ("CREATED", 0, "○")],
)
def test_a_tick_stands_only_where_nothing_failed(status: str, failed: int, sign: str) -> None:
    shown = look(status=status, headline={"level": "ok", "text": "So it is"}, devices={"SUCCESS": 4, "FAILED": failed})
    assert f"{sign} So it is" in drawn(shown)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert drawn(look(causes=[]), encoding="ascii").isascii()


def test_a_campaign_that_is_over_has_no_forecast() -> None:
    assert "done between" not in drawn(look(status="COMPLETED"))


def test_with_little_room_the_last_events_are_shown() -> None:
    at = "2027-01-11T08:00:00Z"
    events = [
        Event.read({"at": at, "event": "paused", "device_id": None, "text": f"event {number}", "detail": {}})
        for number in range(30)
    ]
    seen = drawn(look(), events=events)
    assert "event 29" in seen
    assert "event 23" not in seen


@pytest.mark.parametrize(("passed", "shown"), [(0, "abc"), (1, "abc"), (2, "bcd"), (3, "cde"), (4, "cde"), (5, "cde")])
def test_the_waves_around_the_present_one_are_shown(passed: int, shown: str) -> None:
    waves = [
        WaveLine(name, 1, 0, 0, "passed" if number < passed else "waiting", name, None)
        for number, name in enumerate("abcde")
    ]
    assert "".join(each.name for each in around_the_present(waves)) == shown


def test_a_line_has_the_status_the_devices_and_the_verdict() -> None:
    assert in_one_line(look().snapshot) == (
        "RUNNING  50 PENDING · 47 SUCCESS · 3 FAILED  (Guardrail boots: 3 more failures)"
    )
    assert counts(look(devices={"total": 0}).snapshot) == "no devices"


def test_an_aborted_campaign_is_over_before_its_devices_are_finished() -> None:
    aborted = look(status="ABORTED", devices={"INSTALLING": 1, "SKIPPED": 9}).snapshot
    assert aborted.over
    assert not aborted.counters_final
    assert look(status="ABORTED", devices={"FAILED": 1, "SKIPPED": 9}).snapshot.counters_final


def test_only_a_failed_attempt_has_a_cause() -> None:
    def cause(event: str, reason: str) -> str | None:
        document = {"at": "2027-01-11T08:00:00Z", "event": event, "device_id": "gw-1", "text": "said"}
        return Event.read(document | {"detail": {"attempt": 1, "reason": reason}}).cause

    assert cause("attempt_failed", "no\x1bdisk") == "no\\x1bdisk"
    assert cause("attempt_failed", "") == "no reason given"
    assert cause("given_up", "no disk") is None


@given(st.integers(0, 200), st.lists(st.integers(0, 10_000), min_size=1, max_size=6))
def test_cells_are_shared_out_completely_and_no_part_is_lost(total: int, parts: list[int]) -> None:
    cells = shared_out(total, parts)
    assert sum(cells) == (total if sum(parts) else 0)
    assert all(cell >= 0 for cell in cells)
    if total >= len(parts):
        assert [bool(cell) for cell in cells] == [bool(part) for part in parts]


@given(st.lists(st.integers(0, 1000), min_size=6, max_size=6))
def test_a_bar_of_states_always_fills_its_width(devices: list[int]) -> None:
    by_state = dict(zip(ExecutionStatus, devices, strict=True))
    console = Console(width=40, file=io.StringIO(), record=True, force_terminal=True)
    console.print(StateBar(by_state))
    assert len(console.export_text().rstrip("\n")) == (40 if sum(devices) else 0)


@pytest.mark.parametrize(
    ("used", "tripped", "cells"),
    [(0.0, False, 0), (0.001, False, 1), (0.5, False, 5), (0.999, False, 9), (0.2, True, 10)],
)
def test_a_gauge_is_full_only_when_it_has_tripped(used: float, tripped: bool, cells: int) -> None:
    console = Console(width=20, file=io.StringIO(), record=True, force_terminal=True)
    console.print(gauge(used, 10, tripped=tripped))
    assert console.export_text().count("━") == cells


def test_a_sparkline_without_values_is_flat() -> None:
    console = Console(width=20, file=io.StringIO(), record=True, force_terminal=True)
    console.print(Sparkline([0.0, 0.0]))
    console.print(Bar(0.0, 3))
    assert console.export_text() == "▁▁\n───\n"
