"""Shows the flat columns of a campaign as a policy document, for people: the campaign does not follow it."""

from __future__ import annotations

from typing import Any

from rollwave.domain.policy.document.units import write_duration
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.words import Strategy

DECIMALS = 9
"""Digits after the point that a share has in a document."""


def as_document(policy: Policy, *, tick: float) -> dict[str, Any]:
    """The document that says what the flat columns mean, with the settings in the place of missing values.

    ``tick``: its length in seconds. ``per_minute`` need not be a whole number here, as it has to be in a document.
    """
    per_minute = round(policy.rate * 60 / tick, DECIMALS)
    pace: dict[str, Any] = {"per_minute": int(per_minute) if per_minute.is_integer() else per_minute}
    if policy.max_in_flight is not None:
        pace["max_in_flight"] = policy.max_in_flight
    guardrail = {
        "name": "failures",
        "threshold": _share(policy.guardrail.threshold * 100),
        "method": "ratio",
        "min_finished": policy.guardrail.min_completed,
        "scope": "campaign",
        "action": "abort",
    }
    return {
        "version": 1,
        "order": "id",
        **({"waves": _canary(policy.canary_percent)} if policy.strategy == Strategy.CANARY else {}),
        "pace": pace,
        "guardrails": [guardrail],
        "retry": {
            "on": sorted(each.value for each in policy.retry.on),
            "max_attempts": policy.retry.max_attempts,
            "delay": write_duration(policy.retry.delay),
            "max_delay": write_duration(policy.retry.max_delay),
        },
        "deadlines": {
            "answer": write_duration(policy.answer_timeout),
            "progress": write_duration(policy.progress_timeout),
            "total": write_duration(policy.device_timeout),
        },
    }


def _canary(percent: float | None) -> list[dict[str, Any]]:
    """The two waves. A share is rounded up and at least one device, as the flat column is."""
    return [{"name": "canary", "size": _share(percent or 0.0), "gate": {"min_finished": "100%"}}, {"name": "rest"}]


def _share(percent: float) -> str:
    text = f"{percent:.{DECIMALS}f}"
    return f"{text.rstrip('0').rstrip('.')}%"
