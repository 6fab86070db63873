"""How many devices a dry run says are exposed: never fewer than it takes until a guardrail trips."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.exposure import exposed_devices
from rollwave.domain.policy.rules import policy_of
from rollwave.domain.policy.sequential import is_evidence


def exposed(*guardrails: dict[str, Any], max_in_flight: int | None = 1, segments: int = 1) -> int | None:
    document = PolicyDocument.model_validate({"guardrails": list(guardrails)})
    policy = policy_of(document, tenant_id="north", progress_timeout=1800, device_timeout=86_400, max_attempts=3)
    return exposed_devices(policy, first_wave=100_000, max_in_flight=max_in_flight, segments=segments)


@given(st.integers(1, 60), st.sampled_from([0.001, 0.01, 0.2]), st.integers(1, 30), st.integers(1, 20))
def test_the_failures_of_a_sequential_guardrail_are_those_that_trip_it(
    threshold: int, chance: float, minimum: int, cap: int
) -> None:
    rule = {"method": "sequential", "threshold": f"{threshold}%", "alpha": chance, "min_finished": minimum}
    found = exposed(rule, max_in_flight=cap)
    assert found is not None
    failed = found - cap + 1
    assert is_evidence(failed, failed, threshold / 100, chance)
    assert failed == minimum or not is_evidence(failed - 1, failed - 1, threshold / 100, chance)


def test_a_ratio_needs_its_minimum_and_a_segment_exposes_its_own_devices() -> None:
    assert exposed({"min_finished": 20}, max_in_flight=5) == 24
    by_segment = {"scope": "segment", "per": ["site"], "action": "quarantine"}
    assert exposed({"min_finished": 20, **by_segment}, max_in_flight=5, segments=3) == 72


def test_a_sequential_guardrail_with_a_threshold_near_all_devices_is_answered_too() -> None:
    assert exposed({"method": "sequential", "threshold": "99.9999%"}) == 100_000


@pytest.mark.parametrize("key", [{"codes": ["E_BOOT"]}, {"count": ["reported", "rejected"]}])
def test_a_guardrail_that_does_not_count_every_failure_may_never_act(key: dict[str, Any]) -> None:
    assert exposed(key) is None
    assert exposed(key, {"name": "all", "min_finished": 7}) == 7
