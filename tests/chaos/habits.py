"""How devices answer in a schedule: repeating themselves, in any order, late, or not at all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import ask_topic, status_topic
from tests.engine import Command, Devices


def fate(device: str) -> str:
    """What a device ends as where not all is bad: one in ten fails."""
    return "FAILED" if device.endswith("7") else "SUCCESS"


@dataclass
class Habits:
    """Where nothing is lost, a device answers once a campaign."""

    dice: random.Random
    forgetful: bool
    bad: frozenset[int] = frozenset()
    answered: set[tuple[str, str, int]] = field(default_factory=set)
    _kept: list[tuple[str, bytes]] | None = None
    """Reports that wait until :meth:`speak`; None: they are sent at once."""

    def answer(self, command: Command) -> Sequence[bytes]:
        """What a device says to a command."""
        key = command.tenant, command.device, command.campaign
        if self.forgetful and self.dice.random() < 0.1:
            return ()
        if not self.forgetful and key in self.answered:
            return ()
        self.answered.add(key)
        last = "FAILED" if command.campaign in self.bad else fate(command.device)
        words = ["DOWNLOADING", "INSTALLING"] * self.dice.randint(0, 2) + [last] * self.dice.randint(1, 3)
        self.dice.shuffle(words)
        reports = [encode_report(command.campaign, word) for word in words]
        if self._kept is None:
            return reports
        self._kept += [(status_topic(command.tenant, command.device), each) for each in reports]
        return ()

    def be_silent(self) -> None:
        """Devices that get a command from now on say nothing."""
        self._kept = []

    def speak(self, fleet: Devices) -> int:
        """They say what they had to say. Returns how many reports that were."""
        kept, self._kept = self._kept or [], None
        for topic, payload in kept:
            fleet.send(topic, payload)
        return len(kept)


def question(fleet: Devices, dice: random.Random) -> None:
    """One device that has had a command asks what it should be doing."""
    if fleet.commands:
        chosen = dice.choice(fleet.commands)
        fleet.send(ask_topic(chosen.tenant, chosen.device), b"")
