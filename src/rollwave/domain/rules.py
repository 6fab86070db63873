"""The rules of one campaign, read from what its row holds. Reading fails closed: see :func:`read`."""

from __future__ import annotations

from dataclasses import dataclass

from rollwave.domain.guardrail import Guardrail
from rollwave.domain.ids import is_valid_id
from rollwave.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that can be obeyed. ``patience`` is the seconds a device in progress may stay silent."""

    guardrail: Guardrail
    rate: int
    max_in_flight: int | None
    patience: float
    max_attempts: int


def read(
    *,
    tenant_id: str,
    threshold: float | None,
    min_completed: int | None,
    rate: int | None,
    max_in_flight: int | None,
    patience: float,
    max_attempts: int,
) -> Rules:
    """Check what a row holds; the engine holds a campaign whose rules cannot be read.

    Raises:
        InvalidInput: a value is missing or out of range; the message says which.
    """
    if not is_valid_id(tenant_id):
        raise InvalidInput("the tenant's id cannot be an MQTT topic level, so no device of it can be addressed")
    if rate is None or rate < 1:
        raise InvalidInput(f"rollout_rate {rate} is below 1", hint="Set it to devices per tick, then start again.")
    if max_in_flight is not None and max_in_flight < 1:
        raise InvalidInput(f"max_in_flight {max_in_flight} is below 1", hint="Set it to 1 or more, or to NULL.")
    if not 0 < patience <= 31_536_000:
        raise InvalidInput(f"progress_timeout {patience} is not over 0", hint="Set it to seconds, or to NULL.")
    if not 1 <= max_attempts <= 100:
        raise InvalidInput(f"max_attempts {max_attempts} is not within 1 to 100")
    return Rules(Guardrail.read(threshold, min_completed), rate, max_in_flight, patience, max_attempts)
