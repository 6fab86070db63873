"""``rollwave fleet``: simulated devices on a real broker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.cli.output import Format
from rollwave.cli.wire_options import Tenant, Url, broker_at

if TYPE_CHECKING:
    from rollwave.fleet import Fleet, FleetPlan, FleetTally
    from rollwave.mqtt.broker import Broker

_LOOK = 0.2
_CONNECT_WITHIN = 30.0


class FailStage(StrEnum):
    """Where failing devices fail."""

    DOWNLOAD = "download"
    INSTALL = "install"


class _Ending(IntEnum):
    """Exit codes."""

    DONE = 0
    TIMED_OUT = 4


@dataclass(frozen=True, slots=True)
class _Until:
    seconds: float
    outcomes: int


def fleet(
    tenant: Tenant,
    devices: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of devices.")],
    url: Url = "",
    prefix: Annotated[str, typer.Option(help="Prefix of the device ids: PREFIX1, PREFIX2 and so on.")] = "dev-",
    connections: Annotated[int, typer.Option(min=2, max=256, help="Number of MQTT connections.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed that decides which devices have which fault.")] = 1,
    fail: Annotated[float, typer.Option(min=0, max=1, help="Share of devices that report FAILED, 0 to 1.")] = 0.0,
    fail_stage: Annotated[FailStage, typer.Option(help="Step at which they fail.")] = FailStage.INSTALL,
    fail_code: Annotated[
        str, typer.Option(help="Code that they report, such as E_BOOT.  [default: the step's]", show_default=False)
    ] = "",
    mute: Annotated[float, typer.Option(min=0, max=1, help="Share of devices that never answer a command.")] = 0.0,
    duplicate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of devices that send every report twice.")
    ] = 0.0,
    reorder: Annotated[
        float, typer.Option(min=0, max=1, help="Share of devices that send their reports in reverse order.")
    ] = 0.0,
    slow: Annotated[float, typer.Option(min=0, max=1, help="Share of devices that take ten times as long.")] = 0.0,
    step_delay: Annotated[float, typer.Option(min=0, help="Average extra duration of each step, in seconds.")] = 0.5,
    download: Annotated[bool, typer.Option(help="Download and verify artifacts.")] = True,
    for_: Annotated[float, typer.Option("--for", min=0, help="Stop after this time, in seconds. 0: no limit.")] = 0.0,
    commands: Annotated[
        int, typer.Option(min=0, help="Stop when this number of devices has reported an outcome. 0: no limit.")
    ] = 0,
    output: Annotated[Format, typer.Option("--output", "-o", help="Format of the result.")] = Format.TABLE,
) -> None:
    """Simulate devices: they receive commands, download, verify, and report.

    The seed and the device ids determine which devices have a fault, so a run
    can be repeated. The broker's credentials come from MQTT_USERNAME,
    MQTT_PASSWORD, MQTT_CA_CERT, MQTT_CLIENT_CERT and MQTT_CLIENT_KEY.

    Runs until Ctrl-C, --for or --commands, then prints the counters of the
    devices. Exits with 4 if --for ends before --commands is reached.

    For example:

        rollwave fleet --tenant demo --devices 1000 --fail 0.02 --mute 0.01

    rollwave fleet --tenant demo --devices 200 --commands 200 --for 300 -o json
    """
    from rollwave import log
    from rollwave.cli.fleet_display import print_tally
    from rollwave.fleet import FaultRates, FleetPlan, Stage
    from rollwave.settings import Settings

    settings = Settings.load()
    log.configure(settings)
    plan = FleetPlan(
        tenant_id=tenant,
        device_ids=_ids(prefix, devices),
        seed=seed,
        faults=FaultRates(fail, Stage(fail_stage.value), mute, duplicate, reorder, slow, fail_code),
        download=download,
        step_delay=step_delay,
        connections=connections,
    )
    tally, ending = asyncio.run(_run(broker_at(url, settings), plan, _Until(for_, commands)))
    print_tally(tally, output)
    raise typer.Exit(ending)


def _ids(prefix: str, devices: int) -> list[str]:
    from rollwave.domain.ids import ID_RULE, is_valid_id

    ids = [f"{prefix}{number}" for number in range(1, devices + 1)]
    if not is_valid_id(ids[-1]):
        raise typer.BadParameter(f"prefix and number together must be {ID_RULE}", param_hint="--prefix")
    return ids


async def _run(broker: Broker, plan: FleetPlan, until: _Until) -> tuple[FleetTally, _Ending]:
    from rollwave.cli.signals import stop_requested
    from rollwave.fleet import Fleet

    stop = stop_requested()
    async with Fleet(broker, plan) as simulated:
        ending = await _watch(simulated, until, stop)
    return simulated.tally, ending


async def _watch(simulated: Fleet, until: _Until, stop: asyncio.Event) -> _Ending:
    from rollwave.cli.fleet_display import Display
    from rollwave.errors import BrokerUnavailable

    clock = asyncio.get_running_loop().time
    began, connected = clock(), False
    with Display() as display:
        while not stop.is_set():
            tally, passed = simulated.tally, clock() - began
            connected = connected or simulated.connected
            display.show(tally, passed)
            if until.outcomes and tally.finished >= until.outcomes:
                break
            if until.seconds and passed >= until.seconds:
                return _Ending.TIMED_OUT if until.outcomes else _Ending.DONE
            if not connected and passed > _CONNECT_WITHIN:
                raise BrokerUnavailable(
                    f"no MQTT session within {_CONNECT_WITHIN:g} s",
                    hint="Check --url or MQTT_BROKER_URL, the credentials, and that the broker runs.",
                )
            await _pause(stop)
    return _Ending.DONE


async def _pause(stop: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LOOK):
            await stop.wait()
