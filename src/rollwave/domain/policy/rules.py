"""The policy of a campaign: guardrail, waves, rate, timeouts, retries.

:func:`read_policy` reads it from the flat columns of the campaign's row, :func:`policy_of` from a policy document. A
value that cannot be read is an error here, and the engine pauses the campaign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.execution import LEEWAY
from rollwave.domain.ids import ID_RULE, is_valid_id
from rollwave.domain.policy.document.model import MAX_COUNT, Deadlines, PaceRule, PolicyDocument, RetryRule
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.words import Strategy
from rollwave.domain.retry import LONGEST_SECONDS, SILENCE, RetryPolicy
from rollwave.errors import UnreadableRow

LONGEST_DELAY_SECONDS = 3600.0
"""The longest delay between two attempts, where the policy does not say."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Up to wave ``number`` (from 0), ``up_to`` devices in all may be sent to; None: all devices.

    The next wave opens when all of these devices are terminal and the guardrail holds.
    """

    number: int
    up_to: int | None


def wave_name(number: int, waves: Sequence[Wave]) -> str:
    """The name of a wave, for people."""
    if len(waves) == 1:
        return "all"
    if len(waves) == 2:
        return ("canary", "rest")[number]
    return f"wave {number}"


def wave_at(place: int, waves: Sequence[Wave]) -> Wave:
    """The wave of the device that has ``place`` other devices of the campaign before it."""
    return next((each for each in waves if each.up_to is None or place < each.up_to), waves[-1])


def plan(strategy: str | None, total: int, canary_percent: float | None) -> tuple[Wave, ...]:
    """Split ``total`` devices into waves.

    Linear: one wave. Canary: a first wave of ``canary_percent`` (rounded up, at least 1 device), then the rest.

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
    """The rules of a campaign, checked. Times are seconds.

    ``rate``: devices per tick. ``max_in_flight``: maximum number of devices in flight (None: no cap).
    ``progress_timeout``: maximum time between two reports; ``answer_timeout``: until the first report;
    ``device_timeout``: over all attempts. ``strategy`` and ``canary_percent`` are not checked before waves are planned.
    ``document``: the policy document that the campaign follows; None: it follows the flat columns of its row. With a
    document, ``rate``, ``guardrail``, ``strategy`` and ``canary_percent`` limit nothing.
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
    document: PolicyDocument | None = None

    @property
    def longest_silence(self) -> float:
        """Maximum number of seconds without a report of a device in progress."""
        return max(self.progress_timeout, self.answer_timeout)

    @property
    def longest_deadline(self) -> float:
        """Maximum number of seconds for which a deadline is set: the longest silence and its ``LEEWAY``."""
        return self.longest_silence * (1 + LEEWAY)

    @property
    def longest_wait(self) -> float:
        """Maximum number of seconds until any lease, delay or deadline of the campaign ends."""
        return max(self.longest_silence, self.retry.max_delay)

    @property
    def needs_a_count(self) -> bool:
        """Whether the campaign's devices must be counted before waves are planned, since the first wave is a share."""
        return self.strategy == Strategy.CANARY

    def plan(self, devices: int) -> tuple[Wave, ...]:
        """The waves of a campaign with this number of ``devices``.

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
    """Check the values of a row. The engine pauses a campaign whose policy cannot be read.

    Raises:
        UnreadableRow: a value is missing or out of range. The message names it.
    """
    _require_addressable(tenant_id)
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
    delay = _delay(progress_timeout) if retry_delay is None else retry_delay
    cap = LONGEST_DELAY_SECONDS if retry_delay_max is None else retry_delay_max
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


@dataclass(frozen=True, slots=True)
class OwnTimes:
    """What a policy document itself says about timeouts (seconds) and retries; None: the process's setting applies.

    The engine stores these values beside the document, since SQL decides by them when it applies reports.
    """

    progress_timeout: float | None
    answer_timeout: float | None
    device_timeout: float | None
    max_attempts: int | None
    retry_on: tuple[str, ...] | None


def own_times(document: PolicyDocument) -> OwnTimes:
    """The timeouts and retries of a document. The start jitter is part of the answer timeout."""
    deadlines, retry = document.deadlines or Deadlines(), document.retry or RetryRule()
    jitter = (document.pace or PaceRule()).start_jitter or 0.0
    answer = deadlines.progress if deadlines.answer is None else deadlines.answer
    return OwnTimes(
        deadlines.progress,
        None if answer is None else answer + jitter,
        deadlines.total,
        retry.max_attempts,
        None if retry.on is None else tuple(sorted(set(retry.on))),
    )


def policy_of(
    document: PolicyDocument, *, tenant_id: str, progress_timeout: float, device_timeout: float, max_attempts: int
) -> Policy:
    """The rules of a campaign under a document. Timeouts (seconds) and attempts are the settings', used as defaults.

    Raises:
        UnreadableRow: no device of the tenant can be addressed.
    """
    _require_addressable(tenant_id)
    own, retry, pace = own_times(document), document.retry or RetryRule(), document.pace or PaceRule()
    progress = progress_timeout if own.progress_timeout is None else own.progress_timeout
    answer = progress + (pace.start_jitter or 0.0) if own.answer_timeout is None else own.answer_timeout
    return Policy(
        Guardrail(1.0),
        rate=MAX_COUNT,
        max_in_flight=pace.max_in_flight,
        progress_timeout=progress,
        answer_timeout=answer,
        device_timeout=device_timeout if own.device_timeout is None else own.device_timeout,
        retry=RetryPolicy(
            SILENCE if retry.on is None else frozenset(retry.on),
            max_attempts if retry.max_attempts is None else retry.max_attempts,
            _delay(progress) if retry.delay is None else retry.delay,
            LONGEST_DELAY_SECONDS if retry.max_delay is None else retry.max_delay,
        ),
        document=document,
    )


def _require_addressable(tenant_id: str) -> None:
    if not is_valid_id(tenant_id):
        raise UnreadableRow(
            "the tenant's id cannot be an MQTT topic level, so no device of it can be addressed: it has to be "
            + ID_RULE
        )


def _delay(progress_timeout: float) -> float:
    """Seconds before the second attempt, where the policy does not say."""
    return progress_timeout / 30
