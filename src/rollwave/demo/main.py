"""The demo as a program: the stage, the story on it, and what is told at the end."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rollwave.demo import story
from rollwave.demo.screen import Screen, screen
from rollwave.demo.stage import Stage, data_folder, stage


def play(data: Path | None, *, stay: bool, picture: Path | None) -> int:
    """Play the story and return the exit code: 0 when it came out as it should.

    Args:
        data: the folder for everything that is written; None: a new one among the temporary files.
        stay: on a terminal, keep everything up after the story, until Ctrl-C.
        picture: where to keep the last screen as SVG.

    Raises:
        RollwaveError: something does not start or breaks down.
        KeyboardInterrupt: stopped in the middle. Everything has been stopped.
    """
    # Python ignores an exception that is raised in a finalizer, so what interrupted the start is remembered.
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
        with screen(console, picture) as shown, stage(folder, shown.step) as set_up:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio replaces this one, by cancellation
            if interrupts:
                signal.raise_signal(signal.SIGINT)
            return asyncio.run(_play(set_up, shown, stay=stay and console.is_terminal))
    except KeyboardInterrupt:
        console.print(f"Stopped. The data is in {folder}", markup=False, highlight=False, soft_wrap=True)
        raise


async def _play(set_up: Stage, shown: Screen, *, stay: bool) -> int:
    async with story.fleet(set_up) as devices:
        ending = await story.play(set_up, devices, shown)
        shown.close(_outcome(ending), _next(set_up, ending.bad.id) if stay else _left(set_up))
        if stay:
            await _until_ctrl_c()
    return 1 if ending.faults else 0


async def _until_ctrl_c() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await stop.wait()


def _outcome(ending: story.Ending) -> list[Text]:
    if ending.faults:
        return [Text(f"wrong: {fault}", "red") for fault in ending.faults]
    good, bad = ending.good, ending.bad
    return [
        Text.assemble(("✔ ", "green"), f"{good.version} is on all {good.succeeded} devices."),
        Text.assemble(("✔ ", "green"), f"{bad.version} stopped itself and spared {ending.spared} devices."),
        Text(f"  Why: {bad.reason}.", "bright_black"),
        Text("  The devices' own count is the same, to the device.", "bright_black"),
    ]


def _next(set_up: Stage, campaign_id: int) -> list[Text]:
    commands = [
        f"export ROLLWAVE_API_URL={set_up.api_url}",
        f"export ROLLWAVE_API_KEY={set_up.api_key}",
        "rollwave campaign list",
        f"rollwave campaign devices {campaign_id} --status FAILED",
        f"psql '{set_up.database_url}'",
    ]
    return [
        Text("Everything is still up. In another terminal:"),
        Text(),
        *(Text(f"  {command}", "cyan") for command in commands),
        Text(),
        Text(f"Ctrl-C ends it all. The data stays in {set_up.data}"),
    ]


def _left(set_up: Stage) -> list[Text]:
    return [Text(f"The data is in {set_up.data}")]
