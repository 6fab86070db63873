"""When a listener opens its next session, after another client has taken its session over."""

from __future__ import annotations

from rollwave.engine.ingest.takeover import (
    FORGOTTEN_SECONDS,
    LONGEST_PAUSE_NAMED_SECONDS,
    LONGEST_PAUSE_SUSPECTED_SECONDS,
    STEADY_SECONDS,
    Takeovers,
)


def test_each_reported_takeover_lengthens_the_pause() -> None:
    takeovers = Takeovers()
    pauses = []
    for _ in range(12):
        assert "client id it-0" in takeovers.lost("it-0", after=2 * STEADY_SECONDS, taken_over=True)
        pauses.append(takeovers.pause)
    assert 0.9 < pauses[0] <= 2
    assert 3.9 < pauses[2] <= 8
    assert LONGEST_PAUSE_NAMED_SECONDS * 0.49 < pauses[-1] <= LONGEST_PAUSE_NAMED_SECONDS


def test_a_takeover_after_a_long_time_counts_as_the_first() -> None:
    takeovers = Takeovers()
    for _ in range(12):
        takeovers.lost("it-0", after=1, taken_over=True)
    takeovers.lost("it-0", after=FORGOTTEN_SECONDS + 1, taken_over=True)
    assert takeovers.pause <= 2


def test_the_third_short_session_is_suspected_and_the_pause_stays_small() -> None:
    takeovers = Takeovers()
    assert [takeovers.lost("it-0", after=0.1, taken_over=False), takeovers.pause] == ["", 0.0]
    assert [takeovers.lost("it-0", after=0.1, taken_over=False), takeovers.pause] == ["", 0.0]
    assert "it-0" in takeovers.lost("it-0", after=0.1, taken_over=False)
    assert 0.9 < takeovers.pause <= 2
    for _ in range(20):
        takeovers.lost("it-0", after=0.1, taken_over=False)
    assert LONGEST_PAUSE_SUSPECTED_SECONDS * 0.49 < takeovers.pause <= LONGEST_PAUSE_SUSPECTED_SECONDS


def test_a_long_session_resets_the_count() -> None:
    takeovers = Takeovers()
    for _ in range(2):
        takeovers.lost("it-0", after=0.1, taken_over=False)
    takeovers.lost("it-0", after=STEADY_SECONDS, taken_over=False)
    assert takeovers.lost("it-0", after=0.1, taken_over=False) == ""
