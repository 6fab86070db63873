"""One update of one simulated device, as the sequence of statuses that it reports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from rollwave.device.codes import code_of
from rollwave.device.expected import DownloadFailed
from rollwave.domain.execution import ExecutionStatus
from rollwave.fleet.faults import Fault, Stage


@dataclass(frozen=True, slots=True)
class Step:
    """A status that the device reaches, with the progress (0 to 100), or with the error message and its code."""

    status: ExecutionStatus
    progress: int | None = None
    error: str | None = None
    code: str | None = None


async def job_steps(
    fault: Fault | None, fetch: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]
) -> AsyncIterator[Step]:
    """The steps of a job in order. The last is an outcome, unless a silent fault ends the job before."""
    if fault and fault.stage is Stage.COMMAND:
        for step in _end(fault):
            yield step
        return
    yield Step(ExecutionStatus.DOWNLOADING, progress=0)
    await pause()
    if fault and fault.stage is Stage.DOWNLOAD:
        for step in _end(fault):
            yield step
        return
    try:
        await fetch()
    except DownloadFailed as error:
        yield Step(ExecutionStatus.FAILED, error=str(error), code=code_of(error))
        return
    yield Step(ExecutionStatus.INSTALLING)
    await pause()
    if fault:
        for step in _end(fault):
            yield step
        return
    yield Step(ExecutionStatus.SUCCESS, progress=100)


def _end(fault: Fault) -> list[Step]:
    return [] if fault.silent else [Step(ExecutionStatus.FAILED, error=fault.message, code=fault.reported_code)]
