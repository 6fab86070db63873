"""The doctor's decisions, without servers."""

from __future__ import annotations

import pytest

from rollwave.doctor.database import seconds_apart
from rollwave.doctor.devices import Device
from rollwave.doctor.finding import Finding, attempt, problem
from rollwave.errors import BrokerUnavailable, InvalidInput


@pytest.mark.parametrize(
    ("theirs", "apart"), [(100.0, 0.0), (100.4, 0.0), (101.0, 0.0), (104.0, 3.0), (97.0, 3.0), (-26.0, 126.0)]
)
def test_a_slow_answer_is_not_taken_for_a_clock_difference(theirs: float, apart: float) -> None:
    assert seconds_apart(100.0, theirs, 101.0) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("username", "tenant", "expected"),
    [
        ("north/device/dev-1", None, ("north", "dev-1")),
        ("north/device/dev-1", "south", ("north", "dev-1")),
        ("dev-1", "north", ("north", "dev-1")),
        ("Süd 1/device/gerät@1", None, ("Süd 1", "gerät@1")),
    ],
)
def test_a_user_name_gives_tenant_and_device(username: str, tenant: str | None, expected: tuple[str, str]) -> None:
    device = Device.of(username, "hidden", tenant)
    assert (device.tenant, device.name) == expected
    assert "hidden" not in repr(device)


@pytest.mark.parametrize(
    ("username", "tenant"),
    [("dev-1", None), ("a/b", "north"), ("+/device/#", None), ("/device/", None), ("dev-1", "a/b"), ("a/b/c/d", None)],
)
def test_a_user_name_without_tenant_and_device_is_refused(username: str, tenant: str | None) -> None:
    with pytest.raises(InvalidInput):
        Device.of(username, "hidden", tenant)


async def test_an_error_becomes_a_problem_with_its_fix() -> None:
    async def broken() -> Finding:
        raise BrokerUnavailable("gone", hint="start it")

    assert await attempt("x", broken()) == problem("x", "gone", "start it")
    assert await attempt("x", broken(), "look there") == problem("x", "gone", "look there")
