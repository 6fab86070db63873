"""Runs all checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rollwave.doctor.broker import examine_broker, without_certificate
from rollwave.doctor.database import examine_database
from rollwave.doctor.devices import Device, examine_devices
from rollwave.doctor.finding import Finding, ok, problem, warning
from rollwave.errors import RollwaveError
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings


class Login(NamedTuple):
    """User name and password with which a device connects to the broker."""

    username: str
    password: str


async def examine(devices: Sequence[Login] = (), tenant: str | None = None) -> list[Finding]:
    """Check the installation that the environment describes.

    Args:
        devices: logins of two test devices, to check the broker's ACL. Empty: no such checks.
        tenant: the tenant of the devices. Needed if their user names do not contain it.

    Raises:
        InvalidInput: a user name does not contain tenant and device.
    """
    probes = [Device.of(username, password, tenant) for username, password in devices]
    settings = Settings.load()
    findings = _settings(settings)
    findings += await examine_database(settings)
    findings += await examine_broker(settings, probes[0] if len(probes) == 2 else None)
    if len(probes) == 2:
        try:
            bare = without_certificate(settings) if settings.mqtt_client_cert else None
            findings += await examine_devices(Broker.from_settings(settings), bare, *probes)
        except RollwaveError as error:
            findings.append(problem("devices", str(error), error.hint))
    return findings


def _settings(settings: Settings) -> list[Finding]:
    findings = [problem("settings", str(fault), fault.hint) for fault in settings.faults()]
    findings += [warning("settings", str(fault), fault.hint) for fault in settings.tolerated()]
    return findings or [ok("settings", "can be read")]
