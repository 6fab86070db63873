"""The codes of failures that the reference device and the simulated fleet report."""

from __future__ import annotations

import json

import pytest

from rollwave.device.codes import code_of
from rollwave.device.decide import State, advance, decide, finish
from rollwave.device.download import DownloadRefused, NotWritten
from rollwave.device.expected import ChecksumMismatch, DownloadFailed, NotAsExpected
from rollwave.device.install import InstallFailed
from rollwave.device.memory import StateNotSaved
from rollwave.device.outbox import Outgoing
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.reports.parse import Report, parse
from rollwave.fleet.faults import Fault, FaultRates, Stage, profile
from rollwave.mqtt.payload import Command

COMMAND = Command(7, "https://files.invalid/f", "2.1.0", "", "update", None)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (DownloadFailed("x"), "E_DOWNLOAD"),
        (DownloadRefused("x"), "E_DOWNLOAD"),
        (NotAsExpected("x"), "E_CONTENT"),
        (ChecksumMismatch("x"), "E_CHECKSUM"),
        (NotWritten("x"), "E_DISK"),
        (StateNotSaved("x"), "E_DISK"),
        (OSError("x"), "E_DISK"),
        (InstallFailed("x"), "E_INSTALL"),
        (ValueError("x"), "E_AGENT"),
    ],
)
def test_each_kind_of_failure_has_a_code(failure: Exception, code: str) -> None:
    assert code_of(failure) == code


def test_the_code_is_in_the_report_until_the_body_must_be_short() -> None:
    state = advance(decide(State(), COMMAND, 1).state, ExecutionStatus.INSTALLING)
    [job] = finish(state, ExecutionStatus.FAILED, "no boot", "E_BOOT").finished
    longest, *_, shortest = Outgoing.of(job).bodies()
    report = parse(longest)
    assert isinstance(report, Report)
    assert (report.code, report.error, report.attempt) == ("E_BOOT", "no boot", 1)
    assert json.loads(shortest) == {"campaign_id": 7, "status": "FAILED"}


def test_a_simulated_fault_has_the_code_of_its_step_or_a_given_one() -> None:
    assert [Fault(stage).reported_code for stage in Stage] == ["E_REFUSED", "E_DOWNLOAD", "E_BOOT"]
    fault = profile(1, "dev-1", FaultRates(fail=1.0, fail_code="E_DISK")).fault
    assert fault is not None
    assert fault.reported_code == "E_DISK"
