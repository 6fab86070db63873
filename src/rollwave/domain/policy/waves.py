"""Waves: the order in which a campaign opens up to its devices, and the gate between two of them.

A wave is a cumulative device count. Wave k may send to devices until ``up_to`` of them have been sent
to in all; its gate opens the next wave once every one of those is terminal and the guardrail holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rollwave.errors import UnreadableRow


class Strategy(StrEnum):
    """The words of ``ota_campaigns.rollout_strategy``."""

    LINEAR = "linear"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Wave:
    """Wave ``number`` (from 0) lets ``up_to`` devices in all be sent to; None: all of them."""

    number: int
    up_to: int | None


def name_of(number: int, waves: Sequence[Wave]) -> str:
    """What people call a wave of these."""
    if len(waves) == 1:
        return "all"
    if len(waves) == 2:
        return ("canary", "rest")[number]
    return f"wave {number}"


def wave_at(place: int, waves: Sequence[Wave]) -> Wave:
    """The wave in which the device goes before which ``place`` others go, in all."""
    return next((each for each in waves if each.up_to is None or place < each.up_to), waves[-1])


def plan(strategy: str | None, total: int, canary_percent: float | None) -> tuple[Wave, ...]:
    """Split ``total`` devices into waves.

    Linear is one wave. Canary is a first share of ``canary_percent`` (rounded up, at least 1 device), then the rest.

    Raises:
        UnreadableRow: the strategy is not known, or the percentage is not over 0 and up to 100.
    """
    match strategy:
        case Strategy.LINEAR:
            return (Wave(0, None),)
        case Strategy.CANARY:
            if canary_percent is None or not 0 < canary_percent <= 100:
                raise UnreadableRow(
                    f"canary_percent {canary_percent} is not over 0 and up to 100",
                    hint="Set canary_percent to a share such as 5, then start the campaign again.",
                )
            first = max(1, math.ceil(total * canary_percent / 100))
            return (Wave(0, first), Wave(1, None))
        case _:
            raise UnreadableRow(
                f"rollout_strategy {strategy!r} is not known",
                hint="Set rollout_strategy to linear or canary, then start the campaign again.",
            )
