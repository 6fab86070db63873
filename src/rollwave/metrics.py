"""What Prometheus sees. Never a label per device, tenant or campaign: the number of series is fixed."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

dispatched = Counter("rollwave_devices_dispatched", "Commands that the broker acknowledged", registry=REGISTRY)
publish_failed = Counter(
    "rollwave_publish_failed",
    "Commands that the broker did not acknowledge; they go again",
    registry=REGISTRY,
)
publish_seconds = Histogram(
    "rollwave_publish_seconds",
    "From handing half a batch of commands to the broker to its last acknowledgement",
    buckets=_FAST,
    registry=REGISTRY,
)
claims_in_flight = Gauge(
    "rollwave_claims_in_flight", "Commands claimed by this worker and not yet settled", registry=REGISTRY
)
reports = Counter("rollwave_reports", "Reports received, by what became of them", ["outcome"], registry=REGISTRY)
for _outcome in ("applied", "bad_topic", "bad_payload", "invalid_data"):
    reports.labels(_outcome)  # counted from zero: alerts see no increase where a series begins with its first count
questions = Counter("rollwave_questions", "Devices that asked what to do, by the answer", ["answer"], registry=REGISTRY)
batch_size = Histogram("rollwave_report_batch_size", "Reports taken in together", buckets=_SIZES, registry=REGISTRY)
batch_seconds = Histogram(
    "rollwave_report_batch_seconds",
    "From the first report of a batch to its commit",
    buckets=_FAST,
    registry=REGISTRY,
)
report_lag = Gauge("rollwave_report_lag", "Reports received and not yet committed", registry=REGISTRY)
broker_dropped = Gauge(
    "rollwave_broker_messages_dropped",
    "Messages that the broker has dropped since it started, for any client; NaN where it does not say",
    registry=REGISTRY,
)
broker_dropped.set(float("nan"))
campaigns = Gauge("rollwave_campaigns", "Campaigns that need the engine, by status", ["status"], registry=REGISTRY)
ready = Gauge(
    "rollwave_ready",
    "1 where the check of /readyz is ok, 0 where it is not; checks that a failed one leaves open are missing",
    ["check"],
    registry=REGISTRY,
)
auto_aborts = Counter("rollwave_auto_aborts", "Campaigns stopped by their guardrail", registry=REGISTRY)
tick_seconds = Histogram("rollwave_tick_seconds", "One look at one campaign", buckets=_FAST, registry=REGISTRY)
