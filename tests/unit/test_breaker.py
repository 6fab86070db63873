"""A circuit breaker lets one caller probe, and ignores the results of calls that began before the outage ended."""

from __future__ import annotations

import time

from rollwave.breaker import Breaker
from rollwave.log_once import LogOnce


def test_after_a_failure_the_breaker_admits_no_call_until_its_pause_is_over() -> None:
    breaker = Breaker()
    assert breaker.admits()
    assert breaker.failed()
    assert not breaker.failed(), "it is logged once"
    assert breaker.pause > 0
    assert not breaker.admits()
    assert breaker.worked() is not None
    assert breaker.admits()


def test_a_failure_that_began_before_the_last_success_is_ignored() -> None:
    breaker = Breaker()
    began = time.monotonic()
    breaker.worked()
    assert not breaker.failed(began)
    assert breaker.away_for is None


def test_a_success_that_began_before_the_last_failure_is_ignored() -> None:
    breaker = Breaker()
    began = time.monotonic()
    assert breaker.failed()
    assert breaker.worked(began) is None
    assert breaker.away_for is not None, "otherwise a new outage would be logged twice"
    assert breaker.worked(time.monotonic()) is not None
    assert breaker.away_for is None


def test_a_message_is_logged_again_when_it_changed_or_was_cleared() -> None:
    log_once = LogOnce(room=2)
    assert log_once.is_new("north", "away")
    assert not log_once.is_new("north", "away")
    assert log_once.is_new("north", "slow")
    log_once.clear("north")
    assert log_once.is_new("north", "slow")
    assert log_once.is_new("south", "slow")
    assert log_once.is_new("west", "slow")
    assert log_once.is_new("north", "slow"), "it was dropped for lack of room"
