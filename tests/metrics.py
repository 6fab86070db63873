"""The engine's metrics as Prometheus would read them from this process."""

from __future__ import annotations

from prometheus_client import REGISTRY

from rollwave import metrics


def sample(name: str, **labels: str) -> float:
    """The present value of a sample. 0 if it has no value yet."""
    metrics.join(REGISTRY)
    return REGISTRY.get_sample_value(name, labels) or 0.0
