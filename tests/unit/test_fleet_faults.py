"""Faults of simulated devices, chosen by a seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.device.expected import DownloadFailed
from rollwave.domain.execution import ExecutionStatus
from rollwave.fleet import Fault, FaultRates, Stage
from rollwave.fleet.faults import profile
from rollwave.fleet.job import Step, job_steps

RATES = FaultRates(fail=0.1, mute=0.02, duplicate=0.3, reorder=0.3, slow=0.2)
IDS = [f"dev-{number}" for number in range(5000)]


@given(st.integers(), st.text(min_size=1, max_size=20))
def test_a_devices_faults_depend_only_on_seed_and_id(seed: int, device_id: str) -> None:
    assert profile(seed, device_id, RATES) == profile(seed, device_id, RATES)


def test_another_seed_chooses_other_devices() -> None:
    broken = [{each for each in IDS if profile(seed, each, RATES).fault} for seed in (1, 2)]
    assert broken[0] != broken[1]


def test_the_shares_of_faulty_devices_are_those_requested() -> None:
    profiles = [profile(1, each, RATES) for each in IDS]
    silent = sum(each.fault is not None and each.fault.silent for each in profiles) / len(IDS)
    failing = sum(each.fault is not None and not each.fault.silent for each in profiles) / len(IDS)
    assert silent == pytest.approx(0.02, abs=0.01)
    assert failing == pytest.approx(0.1, abs=0.02)
    assert sum(each.duplicate for each in profiles) / len(IDS) == pytest.approx(0.3, abs=0.03)
    assert sum(each.pace >= 5 for each in profiles) / len(IDS) == pytest.approx(0.2, abs=0.03)


def test_fault_rates_of_zero_and_one_affect_none_and_all() -> None:
    assert not any(profile(1, each, FaultRates()).fault for each in IDS)
    assert all(profile(1, each, FaultRates(fail=1.0)).fault == Fault(Stage.INSTALL) for each in IDS)


S = ExecutionStatus
HEALTHY = [Step(S.DOWNLOADING, 0), Step(S.INSTALLING), Step(S.SUCCESS, 100)]


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        (None, HEALTHY),
        (Fault(Stage.COMMAND, silent=True), []),
        (Fault(Stage.COMMAND, "no"), [Step(S.FAILED, error="no", code="E_REFUSED")]),
        (Fault(Stage.DOWNLOAD, "no"), [HEALTHY[0], Step(S.FAILED, error="no", code="E_DOWNLOAD")]),
        (Fault(Stage.DOWNLOAD, silent=True), HEALTHY[:1]),
        (Fault(Stage.INSTALL, "no", code="E_X"), [*HEALTHY[:2], Step(S.FAILED, error="no", code="E_X")]),
        (Fault(Stage.INSTALL, silent=True), HEALTHY[:2]),
    ],
)
async def test_a_fault_ends_an_update_at_its_stage(fault: Fault | None, steps: list[Step]) -> None:
    assert [step async for step in job_steps(fault, _nothing, _nothing)] == steps


async def test_a_download_that_fails_is_reported_with_its_reason() -> None:
    async def fetch() -> None:
        raise DownloadFailed("HTTP 404")

    last = [step async for step in job_steps(None, fetch, _nothing)][-1]
    assert last == Step(S.FAILED, error="HTTP 404", code="E_DOWNLOAD")


async def _nothing() -> None:
    pass
