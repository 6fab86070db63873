"""The policies that every tenant has under a name. They cannot be changed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import parse
from rollwave.domain.policy.document.text import Format

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "cautious": """\
# A few devices first, then a day of waiting, then a tenth; a person opens the rest.
version: 1
order: hash
waves:
  - name: canary
    size: "1%"
    gate: {success_rate: "98%", soak: 1d}
  - name: early
    size: "10%"
    gate: {success_rate: "98%", soak: 1d, approval: true}
  - name: rest
pace:
  per_minute: 300
  ramp: {from: 30, factor: 2, every_succeeded: 200}
  max_in_flight: 1000
guardrails:
  - name: failures
    threshold: "2%"
    method: sequential
    alpha: 0.01
    action: pause
""",
        "standard": """\
# A twentieth first and an hour of waiting, then the rest.
version: 1
order: hash
waves:
  - name: canary
    size: "5%"
    gate: {success_rate: "95%", soak: 1h}
  - name: rest
pace:
  per_minute: 600
  max_in_flight: 2000
guardrails:
  - name: failures
    threshold: "10%"
    min_finished: 10
    action: abort
""",
        "emergency": """\
# As fast as is sensible, also during a freeze. It stops only when a third of the devices fail.
version: 1
order: hash
pace:
  per_minute: 6000
guardrails:
  - name: failures
    threshold: "33%"
    min_finished: 50
    action: pause
retry:
  "on": [no_answer, no_progress, reported, rejected]
  max_attempts: 5
  delay: 30s
  max_delay: 10m
schedule:
  ignore_freezes: true
""",
    }
)
"""The YAML of each preset, by name."""


@cache
def preset(name: str) -> PolicyDocument | None:
    """The document of a preset. None: there is no preset of this name."""
    return parse(PRESETS[name], Format.YAML) if name in PRESETS else None
