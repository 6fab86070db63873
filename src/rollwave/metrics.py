"""The metrics. No label has a value per device, tenant or campaign, so the number of series is fixed.

Importing this module does not register them with Prometheus; :func:`join` does.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from rollwave.errors import ConfigurationError

_OURS = CollectorRegistry()
"""A registry with only Rollwave's metrics."""

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

dispatched = Counter("rollwave_devices_dispatched", "Commands that the broker acknowledged", registry=_OURS)
cancelled = Counter("rollwave_cancel_commands", "Cancel commands that the broker acknowledged", registry=_OURS)
retried = Counter("rollwave_devices_retried", "Failed devices that operators gave another attempt", registry=_OURS)
publish_failed = Counter(
    "rollwave_publish_failed",
    "Commands that the broker did not acknowledge; they are sent again",
    registry=_OURS,
)
publish_seconds = Histogram(
    "rollwave_publish_seconds",
    "Time from publishing half a batch of commands to the last acknowledgement",
    buckets=_FAST,
    registry=_OURS,
)
claims_in_flight = Gauge(
    "rollwave_claims_in_flight", "Commands claimed by this worker whose result is not recorded yet", registry=_OURS
)
reports = Counter("rollwave_reports", "Reports received, by outcome", ["outcome"], registry=_OURS)
for _outcome in ("applied", "bad_topic", "bad_payload", "invalid_data"):
    reports.labels(_outcome)  # starts the series at 0: an alert on its increase would miss a series that begins at 1
questions = Counter("rollwave_questions", "Questions of devices, by answer", ["answer"], registry=_OURS)
batch_size = Histogram("rollwave_report_batch_size", "Number of reports per batch", buckets=_SIZES, registry=_OURS)
batch_seconds = Histogram(
    "rollwave_report_batch_seconds",
    "Time from the first report of a batch to its commit",
    buckets=_FAST,
    registry=_OURS,
)
report_lag = Gauge("rollwave_report_lag", "Reports received and not yet committed", registry=_OURS)
broker_dropped = Gauge(
    "rollwave_broker_messages_dropped",
    "Messages that the broker has dropped since its start, for all clients; NaN if it does not publish the number",
    registry=_OURS,
)
broker_dropped.set(float("nan"))
campaigns = Gauge("rollwave_campaigns", "Campaigns that need work by the engine, by status", ["status"], registry=_OURS)
halted_tenants = Gauge("rollwave_halted_tenants", "Tenants of which all sending is halted", registry=_OURS)
ready = Gauge(
    "rollwave_ready",
    "1 if the check of /readyz is ok, otherwise 0; checks that depend on a failed one may be missing",
    ["check"],
    registry=_OURS,
)
auto_aborts = Counter("rollwave_auto_aborts", "Campaigns aborted by their guardrail", registry=_OURS)
guardrail_trips = Counter(
    "rollwave_guardrail_trips", "Guardrails of policy documents that tripped", ["action"], registry=_OURS
)
live_streams = Gauge("rollwave_live_streams", "Open streams of the API and the console", registry=_OURS)
live_reads = Counter("rollwave_live_reads", "Reads of campaigns for all their open streams together", registry=_OURS)
tick_seconds = Histogram("rollwave_tick_seconds", "Duration of one look at one campaign", buckets=_FAST, registry=_OURS)


class _Collector(Collector):
    """All of Rollwave's metrics, for use in another registry."""

    def collect(self) -> Iterable[Metric]:
        return _OURS.collect()

    describe = collect  # a registry uses only the names


_COLLECTOR = _Collector()
_joined: list[CollectorRegistry] = []


def join(registry: CollectorRegistry | None = None) -> None:
    """Add Rollwave's metrics to ``registry``.

    None: prometheus_client's default registry, unless the metrics are in another one already.

    Raises:
        ConfigurationError: the registry has other metrics with the same names.
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
