"""How many devices a dry run says are exposed: never fewer than it takes until a guardrail trips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.exposure import exposed_devices
from rollwave.domain.policy.rules import policy_of
from rollwave.domain.policy.sequential import is_evidence


def exposed(
    *guardrails: dict[str, Any],
    max_in_flight: int | None = 1,
    segments: int = 1,
    waves: Sequence[int] = (100_000,),
    gate: dict[str, Any] | None = None,
) -> int | None:
    sized: list[dict[str, Any]] = [{"size": each} for each in waves[:-1]]
    if gate:
        sized[0]["gate"] = gate
    document = PolicyDocument.model_validate(
        {"guardrails": list(guardrails), "waves": [*sized, {}], "pace": {"max_in_flight": max_in_flight}}
    )
    policy = policy_of(document, tenant_id="north", progress_timeout=1800, device_timeout=86_400, max_attempts=3)
    return exposed_devices(policy, waves=waves, segments=segments)


@given(st.integers(1, 60), st.sampled_from([0.001, 0.01, 0.2]), st.integers(1, 30), st.integers(1, 20))
def test_the_failures_of_a_sequential_guardrail_are_those_that_trip_it(
    threshold: int, chance: float, minimum: int, cap: int
) -> None:
    rule = {"method": "sequential", "threshold": f"{threshold}%", "alpha": chance, "min_finished": minimum}
    found = exposed(rule, max_in_flight=cap)
    assert found is not None
    failed = found - cap + 1
    assert is_evidence(failed, found, threshold / 100, chance), "those in flight may have been sent to first"
    assert failed == minimum or not is_evidence(failed - 1, found - 1, threshold / 100, chance)


def test_a_ratio_needs_its_minimum_and_a_segment_exposes_its_own_devices() -> None:
    assert exposed({"min_finished": 20}, max_in_flight=5) == 24
    by_segment = {"scope": "segment", "per": ["site"], "action": "quarantine"}
    assert exposed({"min_finished": 20, **by_segment}, max_in_flight=5, segments=3) == 72


SEQUENTIAL = {"method": "sequential", "threshold": "50%"}


@pytest.mark.parametrize(
    ("rule", "gate", "most"),
    [
        ({"min_finished": 20}, None, 3),  # at a gate, a ratio needs no minimum
        ({"min_finished": 20, "scope": "segment", "per": ["site"], "action": "quarantine"}, None, 43),
        (SEQUENTIAL, None, 43),  # three failures of three prove nothing about a threshold of 50 %
        (SEQUENTIAL, {"success_rate": "1%"}, 3),
        (SEQUENTIAL | {"threshold": "5%"}, None, 3),
        (SEQUENTIAL | {"threshold": "5%"}, {"min_finished": 1}, 43),
        (SEQUENTIAL | {"threshold": "5%", "scope": "segment", "per": ["site"]}, None, 43),
    ],
)
def test_the_first_wave_bounds_the_number_only_if_its_gate_stays_closed(
    rule: dict[str, Any], gate: dict[str, Any] | None, most: int
) -> None:
    assert exposed(rule, max_in_flight=None, waves=[3, 40], gate=gate, segments=3) == most


def test_the_cap_of_the_first_wave_ends_with_its_gate() -> None:
    document = {"waves": [{"size": 3, "max_in_flight": 1}, {}], "guardrails": [SEQUENTIAL], "pace": {}}
    policy = policy_of(
        PolicyDocument.model_validate(document),
        tenant_id="north",
        progress_timeout=1800,
        device_timeout=86_400,
        max_attempts=3,
    )
    assert exposed_devices(policy, waves=[3, 40], segments=1) == 43


def test_a_guardrail_that_never_trips_exposes_all_devices() -> None:
    assert exposed({"threshold": "100%"}) is None
    assert exposed({"method": "sequential", "threshold": "99.9999%"}) == 100_000


@pytest.mark.parametrize("key", [{"codes": ["E_BOOT"]}, {"count": ["reported", "rejected"]}])
def test_a_guardrail_that_does_not_count_every_failure_may_never_act(key: dict[str, Any]) -> None:
    assert exposed(key) is None
    assert exposed(key, {"name": "all", "min_finished": 7}) == 7
