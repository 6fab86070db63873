"""The rules of one campaign, read from what its row holds. Reading fails closed: see :func:`read`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.ids import ID_RULE, is_valid_id
from rollwave.domain.policy.guardrail import Guardrail
from rollwave.domain.reports.throttle import LEEWAY
from rollwave.domain.retry import LONGEST_SECONDS, RetryPolicy
from rollwave.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that can be obeyed. Times are seconds.

    ``patience`` is how long a device in progress may stay silent, ``answer_within`` how long its first word may
    take, ``device_timeout`` how long it has in all.
    """

    guardrail: Guardrail
    rate: int
    max_in_flight: int | None
    patience: float
    answer_within: float
    device_timeout: float
    retry: RetryPolicy

    @property
    def longest_silence(self) -> float:
        """The most seconds that a device in progress may stay silent."""
        return max(self.patience, self.answer_within)

    @property
    def longest_deadline(self) -> float:
        """The most seconds for which a deadline is set: a little more than the silence (``chatter.LEEWAY``)."""
        return self.longest_silence * (1 + LEEWAY)

    @property
    def longest_wait(self) -> float:
        """The most seconds that anything of the campaign may be due in."""
        return max(self.patience, self.answer_within, self.retry.max_delay)


def read(
    *,
    tenant_id: str,
    threshold: float | None,
    min_completed: int | None,
    rate: int | None,
    max_in_flight: int | None,
    patience: float,
    answer_within: float | None,
    device_timeout: float,
    max_attempts: int,
    retry_on: Sequence[str] | None,
    retry_delay: float | None,
    retry_delay_max: float | None,
) -> Rules:
    """Check what a row holds; the engine holds a campaign whose rules cannot be read.

    Raises:
        InvalidInput: a value is missing or out of range; the message says which.
    """
    if not is_valid_id(tenant_id):
        raise InvalidInput(
            "the tenant's id cannot be an MQTT topic level, so no device of it can be addressed: it has to be "
            + ID_RULE
        )
    if rate is None or rate < 1:
        raise InvalidInput(f"rollout_rate {rate} is below 1", hint="Set it to devices per tick, then start again.")
    if max_in_flight is not None and max_in_flight < 1:
        raise InvalidInput(f"max_in_flight {max_in_flight} is below 1", hint="Set it to 1 or more, or to NULL.")
    answer_within = patience if answer_within is None else answer_within
    for name, seconds in (
        ("progress_timeout", patience),
        ("answer_timeout", answer_within),
        ("device_timeout", device_timeout),
    ):
        if not 0 < seconds <= LONGEST_SECONDS:
            raise InvalidInput(f"{name} {seconds} is not over 0 seconds", hint="Set it to seconds, or to NULL.")
    delay = patience / 30 if retry_delay is None else retry_delay
    cap = 3600.0 if retry_delay_max is None else retry_delay_max
    return Rules(
        Guardrail.read(threshold, min_completed),
        rate,
        max_in_flight,
        patience,
        answer_within,
        device_timeout,
        RetryPolicy.read(retry_on, max_attempts, delay, cap),
    )
