"""The policy of one campaign, read from what its row holds: the only parser. See :func:`read_policy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.ids import ID_RULE, is_valid_id
from rollwave.domain.policy.guardrail import Guardrail
from rollwave.domain.policy.waves import Strategy, Wave, plan
from rollwave.domain.reports.throttle import LEEWAY
from rollwave.domain.retry import LONGEST_SECONDS, RetryPolicy
from rollwave.errors import UnreadableRow


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
        """The most seconds for which a deadline is set: a little more than the silence (``throttle.LEEWAY``)."""
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
