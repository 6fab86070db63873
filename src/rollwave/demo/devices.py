"""The simulated pumps of the demo: their labels, and how they take to each firmware."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollwave.demo.servers import TENANT, Servers
from rollwave.fleet import Fault, Fleet, FleetPlan, Stage
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.payload import Command

GOOD, BAD, WORSE, NEXT, FREE = "2.1.0", "2.2.0", "2.3.0", "2.3.1", "2.4.0"
"""Versions of the firmware. BAD and WORSE do not boot on hardware revision B. No campaign of the demo uses FREE."""

DEVICES = tuple(f"pump-{number}" for number in range(1, 301))
ALL, NORTH, SOUTH = "all", "north", "south"
"""The groups of devices. The last two are also the values of the label ``site``."""

_CANARIES = frozenset(sorted(DEVICES)[:15])
"""The devices that campaigns without a policy send to first: the first by id, as text."""
_SOUTHERN = {0, 1, 3}
_OTHER_FAILURES = 40
"""Of this many devices, one has too little space for WORSE."""


def revision(device_id: str) -> str:
    """The hardware revision of a device. The devices of the canary wave are all of revision A."""
    return "B" if _number(device_id) % 3 == 0 and device_id not in _CANARIES else "A"


def site(device_id: str) -> str:
    """The place of a device: 120 devices are in the north, 180 in the south."""
    return SOUTH if _number(device_id) % 5 in _SOUTHERN else NORTH


def groups() -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Each group with its members, as the API takes them."""
    members = [{"device_id": each, "attributes": {"revision": revision(each), "site": site(each)}} for each in DEVICES]
    yield ALL, members
    for place in (NORTH, SOUTH):
        yield place, [each for each in members if site(str(each["device_id"])) == place]


def behaviour(device_id: str, command: Command) -> Fault | None:
    """The fault that a release causes on a device. None: it succeeds."""
    if command.version in {BAD, WORSE} and revision(device_id) == "B":
        return Fault(Stage.INSTALL, reason="image does not boot on hardware revision B, rolled back")
    if command.version == WORSE and _number(device_id) % _OTHER_FAILURES == 1:
        return Fault(Stage.DOWNLOAD, reason="no space left for the image", code="E_SPACE")
    return None


def fleet(servers: Servers, *, step_delay: float) -> Fleet:
    """The simulated devices. They run inside ``async with``.

    ``step_delay``: average time of a download, and of an installation, in seconds.
    """
    plan = FleetPlan(tenant_id=TENANT, device_ids=DEVICES, seed=7, step_delay=step_delay, behaviour=behaviour)
    return Fleet(Broker.from_url(servers.broker_url), plan)


def _number(device_id: str) -> int:
    return int(device_id.rpartition("-")[2])
