"""Runs the demo: starts the servers and the fleet, plays the scenario, and prints the result."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rollwave.client.api import Api
from rollwave.demo import afterwards, scenario
from rollwave.demo.devices import FREE, GOOD, fleet
from rollwave.demo.result import Result
from rollwave.demo.screen import Screen, screen
from rollwave.demo.servers import Servers, data_folder, running_servers


def play(data: Path | None, *, stay: bool | None, picture: Path | None) -> int:
    """Run the demo and return the exit code: 0 if all campaigns ended as expected, otherwise 1.

    Args:
        data: the folder for all files that the demo writes. None: a new temporary folder.
        stay: keep everything running after the story, until Ctrl-C. None: on a terminal only.
        picture: the file to which the last screen is written as SVG. None: it is not written.

    Raises:
        RollwaveError: a server does not start, or fails.
        KeyboardInterrupt: the demo was interrupted. All servers are stopped before this is raised.
    """
    # SIGTERM and SIGHUP stop the demo in the same way as Ctrl-C. Python ignores an exception that is raised
    # while an object is finalized: the signals that arrive during the start are remembered.
    interrupts: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    def as_ctrl_c(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, as_ctrl_c)
    console = Console()
    folder = data_folder(data)
    try:
        with screen(console, picture) as shown, running_servers(folder, shown.step) as servers:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio replaces this one, by cancellation
            if interrupts:
                signal.raise_signal(signal.SIGINT)
            shown.link(servers.login_link)
            return asyncio.run(_play(servers, shown, stay=console.is_terminal if stay is None else stay))
    except KeyboardInterrupt:
        console.print(f"Stopped. The data is in {folder}", markup=False, highlight=False, soft_wrap=True)
        raise


async def _play(servers: Servers, shown: Screen, *, stay: bool) -> int:
    async with fleet(servers, step_delay=scenario.STEP_DELAY) as devices:
        result = await scenario.play(servers, devices, shown)
    if not stay or result.faults:
        shown.close(_outcome(result), _left(servers))
        return 1 if result.faults else 0
    async with fleet(servers, step_delay=afterwards.STEP_DELAY) as devices:
        await devices.ready
        with Api(servers.api_url, servers.api_key) as api:
            await asyncio.to_thread(afterwards.begin, servers, api, datetime.now(UTC))
        shown.close(_outcome(result), _next(servers))
        await _until_ctrl_c()
    return 0


async def _until_ctrl_c() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await stop.wait()


def _outcome(result: Result) -> list[Text]:
    if result.faults:
        return [Text(f"wrong: {fault}", "red") for fault in result.faults]
    good, bad, partial = result.good, result.bad, result.partial
    return [
        Text.assemble(("✔ ", "green"), f"{good.version} is on all {good.succeeded} devices."),
        Text.assemble(
            ("✔ ", "green"), f"The guardrail aborted {bad.version}: it was not sent to {result.skipped} devices."
        ),
        Text(f"  Why: {bad.reason}.", "bright_black"),
        Text.assemble(
            ("✔ ", "green"),
            f"Under a policy, {partial.version} is on {partial.succeeded} devices; {result.quarantined} of revision B"
            f" stay on {good.version}.",
        ),
        Text("  The simulated devices counted the same numbers.", "bright_black"),
    ]


def _next(servers: Servers) -> list[Text]:
    commands = [
        f"export ROLLWAVE_API_URL={servers.api_url}",
        f"export ROLLWAVE_API_KEY={servers.api_key}",
        "rollwave campaign list",
        f"psql '{servers.database_url}'",
    ]
    tasks = [
        "A release to the south is bad, and its guardrail allows too many failures. Stop it.",
        "Why does pump-17 wait?",
        "On which hardware revision does the release to the south fail?",
        f"Send {FREE} to a few devices first, at night only.",
        f"Which devices run {GOOD}?",
    ]
    return [
        Text("The servers and the devices are still running. In the console:"),
        Text(),
        Text(f"  {servers.login_link}", "cyan"),
        Text(),
        *(Text(f"  {number}. {task}") for number, task in enumerate(tasks, 1)),
        Text(),
        Text("Or in another terminal:"),
        Text(),
        *(Text(f"  {command}", "cyan") for command in commands),
        Text(),
        Text(f"Ctrl-C stops them. The data stays in {servers.data}: delete it when you like."),
    ]


def _left(servers: Servers) -> list[Text]:
    return [Text(f"The data is in {servers.data}")]
