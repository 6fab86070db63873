"""The policy of one campaign, read from what its row holds: the only parser. See :func:`read_policy`.

Parts of it with rules of their own are the guardrail, which says when a campaign must stop itself, and the waves, in
which it opens up to its devices. What cannot be read is an error here, and the engine pauses such a campaign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rollwave.domain.execution import LEEWAY
from rollwave.domain.ids import ID_RULE, is_valid_id
from rollwave.domain.retry import LONGEST_SECONDS, RetryPolicy
from rollwave.errors import UnreadableRow


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Trip when more than ``threshold`` (0 to 1) of at least ``min_completed`` finished devices failed."""

    threshold: float
    min_completed: int = 1

    @classmethod
    def read(cls, threshold: float | None, min_completed: int | None) -> Guardrail:
        """Check what a row holds.

        Raises:
            UnreadableRow: the threshold is missing, not a number or not within 0 to 1, or the minimum is below 1.
        """
        if threshold is None or not math.isfinite(threshold) or not 0 <= threshold <= 1:
            raise UnreadableRow(
                f"abort_threshold {threshold} is not within 0 to 1",
                hint="Set abort_threshold to a share of failures such as 0.1, then start the campaign again.",
            )
        if min_completed is None or min_completed < 1:
            raise UnreadableRow(
                f"abort_min_completed {min_completed} is below 1",
                hint="Set abort_min_completed to 1 or more, then start the campaign again.",
            )
        return cls(threshold, min_completed)

    def trips(self, succeeded: int, failed: int) -> bool:
        """Whether ``failed / (succeeded + failed)`` is strictly over the threshold, with enough finished."""
        finished = succeeded + failed
        return finished > 0 and finished >= self.min_completed and failed / finished > self.threshold

    def at_gate(self) -> Guardrail:
        """The same threshold where a wave has ended: its devices are the whole sample, however few."""
        return Guardrail(self.threshold, 1)


class Strategy(StrEnum):
    """The words of ``ota_campaigns.rollout_strategy``."""

    LINEAR = "linear"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Wave:
    """Wave ``number`` (from 0) lets ``up_to`` devices in all be sent to; None: all of them.

    The gate behind it opens the next wave once every one of those is terminal and the guardrail holds.
    """

    number: int
    up_to: int | None


def wave_name(number: int, waves: Sequence[Wave]) -> str:
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


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a campaign, all of which can be obeyed. Times are seconds.

    ``rate`` is devices a tick, ``max_in_flight`` devices at a time (None: no cap). ``progress_timeout`` is how long a
    device in progress may stay silent, ``answer_timeout`` how long its first word may take, ``device_timeout`` how long
    it has in all. ``strategy`` and ``canary_percent`` are as written: they are read once, when waves are planned.
    """

    guardrail: Guardrail
    rate: int
    max_in_flight: int | None
    progress_timeout: float
    answer_timeout: float
    device_timeout: float
    retry: RetryPolicy
    strategy: str | None = Strategy.LINEAR
    canary_percent: float | None = None

    @property
    def longest_silence(self) -> float:
        """The most seconds that a device in progress may stay silent."""
        return max(self.progress_timeout, self.answer_timeout)

    @property
    def longest_deadline(self) -> float:
        """The most seconds for which a deadline is set: a little more than the silence (``execution.LEEWAY``)."""
        return self.longest_silence * (1 + LEEWAY)

    @property
    def longest_wait(self) -> float:
        """The most seconds that anything of the campaign may be due in."""
        return max(self.longest_silence, self.retry.max_delay)

    @property
    def needs_a_count(self) -> bool:
        """Whether waves can be planned only once the campaign's devices are counted: a share of them goes first."""
        return self.strategy == Strategy.CANARY

    def plan(self, devices: int) -> tuple[Wave, ...]:
        """The waves of so many devices.

        Raises:
            UnreadableRow: the strategy or its percentage cannot be read.
        """
        return plan(self.strategy, devices, self.canary_percent)


def read_policy(
    *,
    tenant_id: str,
    threshold: float | None,
    min_completed: int | None,
    rate: int | None,
    max_in_flight: int | None,
    progress_timeout: float,
    answer_timeout: float | None,
    device_timeout: float,
    max_attempts: int,
    retry_on: Sequence[str] | None,
    retry_delay: float | None,
    retry_delay_max: float | None,
    strategy: str | None,
    canary_percent: float | None,
) -> Policy:
    """Check what a row holds; the engine pauses a campaign whose policy cannot be read.

    Raises:
        UnreadableRow: a value is missing or out of range; the message says which.
    """
    if not is_valid_id(tenant_id):
        raise UnreadableRow(
            "the tenant's id cannot be an MQTT topic level, so no device of it can be addressed: it has to be "
            + ID_RULE
        )
    if rate is None or rate < 1:
        raise UnreadableRow(f"rollout_rate {rate} is below 1", hint="Set it to devices per tick, then start again.")
    if max_in_flight is not None and max_in_flight < 1:
        raise UnreadableRow(f"max_in_flight {max_in_flight} is below 1", hint="Set it to 1 or more, or to NULL.")
    answer_timeout = progress_timeout if answer_timeout is None else answer_timeout
    for name, seconds in (
        ("progress_timeout", progress_timeout),
        ("answer_timeout", answer_timeout),
        ("device_timeout", device_timeout),
    ):
        if not 0 < seconds <= LONGEST_SECONDS:
            raise UnreadableRow(f"{name} {seconds} is not over 0 seconds", hint="Set it to seconds, or to NULL.")
    delay = progress_timeout / 30 if retry_delay is None else retry_delay
    cap = 3600.0 if retry_delay_max is None else retry_delay_max
    return Policy(
        Guardrail.read(threshold, min_completed),
        rate,
        max_in_flight,
        progress_timeout,
        answer_timeout,
        device_timeout,
        RetryPolicy.read(retry_on, max_attempts, delay, cap),
        strategy,
        canary_percent,
    )
