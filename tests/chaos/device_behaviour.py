"""How devices answer in a schedule: with duplicates, in any order, late, or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import ask_topic, status_topic
from tests.engine import Command, Devices

SLOWEST_SECONDS = 3.0


def final_status(device: str) -> str:
    """The final status of a device if the firmware is good: one device in ten fails."""
    return "FAILED" if device.endswith("7") else "SUCCESS"


@dataclass
class DeviceBehaviour:
    """How devices answer. Unless ``forgetful``, a device answers each campaign once.

    In campaigns with ``attempts`` it answers each attempt once, and its reports name the attempt. In campaigns that are
    ``to_be_cancelled``, every third device reports nothing until it is told that the campaign was cancelled.
    """

    dice: random.Random
    forgetful: bool
    bad: frozenset[int] = frozenset()
    attempts: frozenset[int] = frozenset()
    to_be_cancelled: frozenset[int] = frozenset()
    answered: set[tuple[str, str, int, int | None]] = field(default_factory=set)
    slow: Devices | None = None
    """The fleet, if some of its devices report their end up to ``SLOWEST_SECONDS`` after the command."""
    _held: list[tuple[str, bytes]] | None = None
    """Reports held back until :meth:`send_held_reports`. None: reports are sent immediately."""

    def answer(self, command: Command) -> Sequence[bytes]:
        """The reports of a device to a command."""
        attempt = command.attempt if command.campaign in self.attempts else None
        key = command.tenant, command.device, command.campaign, attempt
        if self.forgetful and self.dice.random() < 0.1:
            return ()
        if not self.forgetful and key in self.answered:
            return ()
        self.answered.add(key)
        if self._waits_for_cancel(command):
            return ()
        last = "FAILED" if command.campaign in self.bad else final_status(command.device)
        words = ["DOWNLOADING", "INSTALLING"] * self.dice.randint(0, 2) + [last] * self.dice.randint(1, 3)
        self.dice.shuffle(words)
        reports = [encode_report(command.campaign, word, attempt=attempt) for word in words]
        if self.slow is not None and self.dice.random() < 0.5:
            self._report_later(self.slow, command, reports)
            return ()
        if self._held is None:
            return reports
        self._held += [(status_topic(command.tenant, command.device), each) for each in reports]
        return ()

    def cancelled(self, command: Command) -> Sequence[bytes]:
        """The reports of a device to a cancel command. Those that have reported before carry on."""
        if not self._waits_for_cancel(command):
            return ()
        attempt = command.attempt if command.campaign in self.attempts else None
        return [encode_report(command.campaign, "FAILED", attempt=attempt, code="CANCELLED")]

    def _waits_for_cancel(self, command: Command) -> bool:
        return command.campaign in self.to_be_cancelled and int(command.device.removeprefix("dev-")) % 3 == 0

    def _report_later(self, fleet: Devices, command: Command, reports: Sequence[bytes]) -> None:
        later, topic = self.dice.uniform(0, SLOWEST_SECONDS), status_topic(command.tenant, command.device)
        for each in reports:
            asyncio.get_running_loop().call_later(later, fleet.send, topic, each)

    def hold_reports(self) -> None:
        """Hold back the reports of devices that receive a command from now on."""
        self._held = []

    def send_held_reports(self, fleet: Devices) -> int:
        """Send the reports that were held back. Returns their number."""
        held, self._held = self._held or [], None
        for topic, payload in held:
            fleet.send(topic, payload)
        return len(held)


def question(fleet: Devices, dice: random.Random) -> None:
    """Let one device that has received a command ask what to do."""
    if fleet.commands:
        chosen = dice.choice(fleet.commands)
        fleet.send(ask_topic(chosen.tenant, chosen.device), b"")
