"""What Prometheus sees. Never a label per device, tenant or campaign: the number of series is fixed.

To import this registers nothing with Prometheus: :func:`join` does.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from rollwave.errors import ConfigurationError

_OURS = CollectorRegistry()
"""Holds our metrics and nothing else."""

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

dispatched = Counter("rollwave_devices_dispatched", "Commands that the broker acknowledged", registry=_OURS)
publish_failed = Counter(
    "rollwave_publish_failed",
    "Commands that the broker did not acknowledge; they go again",
    registry=_OURS,
)
publish_seconds = Histogram(
    "rollwave_publish_seconds",
    "From handing half a batch of commands to the broker to its last acknowledgement",
    buckets=_FAST,
    registry=_OURS,
)
claims_in_flight = Gauge(
    "rollwave_claims_in_flight", "Commands claimed by this worker and not yet settled", registry=_OURS
)
reports = Counter("rollwave_reports", "Reports received, by what became of them", ["outcome"], registry=_OURS)
for _outcome in ("applied", "bad_topic", "bad_payload", "invalid_data"):
    reports.labels(_outcome)  # counted from zero: alerts see no increase where a series begins with its first count
questions = Counter("rollwave_questions", "Devices that asked what to do, by the answer", ["answer"], registry=_OURS)
batch_size = Histogram("rollwave_report_batch_size", "Reports taken in together", buckets=_SIZES, registry=_OURS)
batch_seconds = Histogram(
    "rollwave_report_batch_seconds",
    "From the first report of a batch to its commit",
    buckets=_FAST,
    registry=_OURS,
)
report_lag = Gauge("rollwave_report_lag", "Reports received and not yet committed", registry=_OURS)
broker_dropped = Gauge(
    "rollwave_broker_messages_dropped",
    "Messages that the broker has dropped since it started, for any client; NaN where it does not say",
    registry=_OURS,
)
broker_dropped.set(float("nan"))
campaigns = Gauge("rollwave_campaigns", "Campaigns that need the engine, by status", ["status"], registry=_OURS)
ready = Gauge(
    "rollwave_ready",
    "1 where the check of /readyz is ok, 0 where it is not; checks that a failed one leaves open are missing",
    ["check"],
    registry=_OURS,
)
auto_aborts = Counter("rollwave_auto_aborts", "Campaigns stopped by their guardrail", registry=_OURS)
tick_seconds = Histogram("rollwave_tick_seconds", "One look at one campaign", buckets=_FAST, registry=_OURS)


class _Collector(Collector):
    """All of our metrics, for another registry."""

    def collect(self) -> Iterable[Metric]:
        return _OURS.collect()

    describe = collect  # names are all that a registry reads of it


_COLLECTOR = _Collector()
_joined: list[CollectorRegistry] = []


def join(registry: CollectorRegistry | None = None) -> None:
    """Have ``registry`` show our metrics too. None: prometheus_client's own, unless they are in some registry already.

    Raises:
        ConfigurationError: it has other metrics of the same names.
    """
    if registry is None and _joined:
        return
    registry = registry or REGISTRY
    if any(each is registry for each in _joined):
        return
    try:
        registry.register(_COLLECTOR)
    except ValueError as error:
        raise ConfigurationError(
            f"Rollwave's metrics are in no registry: {error}",
            hint="Name another registry, as in registry=prometheus_client.CollectorRegistry(), and serve that one too.",
        ) from error
    _joined.append(registry)
