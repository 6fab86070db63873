"""What the gate of a wave says: its soak begins again with each further failure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rollwave.domain.policy.document.model import GateRule
from rollwave.domain.policy.waves import GateDecision, Soak, WaveCounts, judge_gate
from rollwave.domain.policy.words import WaveState

NOW = datetime(2027, 1, 11, tzinfo=UTC)
HOUR = timedelta(hours=1)


def soaking(soak: Soak | None, failed: int, *, after: timedelta) -> GateDecision:
    """The decision about a wave of ten that soaks for two hours, with ``failed`` failed devices."""
    counts = WaveCounts(succeeded=10 - failed, failed=failed)
    return judge_gate(GateRule.model_validate({"soak": "2h"}), counts, soak, failed_so_far=failed, now=NOW + after)


def test_a_soak_begins_again_with_a_further_failure_also_of_a_device_that_was_retried() -> None:
    first = soaking(None, 3, after=0 * HOUR)
    assert (first.state, first.soak) == (WaveState.SOAKING, Soak(NOW, 3))
    retried = soaking(first.soak, 2, after=1 * HOUR)
    assert retried.soak == Soak(NOW, 2), "a retry does not begin the soak again"
    failed_again = soaking(retried.soak, 3, after=1.5 * HOUR)
    assert failed_again.soak == Soak(NOW + 1.5 * HOUR, 3)
    assert soaking(failed_again.soak, 3, after=3 * HOUR).state is WaveState.SOAKING
    assert soaking(failed_again.soak, 3, after=3.5 * HOUR).state is WaveState.PASSED
