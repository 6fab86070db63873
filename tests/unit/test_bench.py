"""Results of the bench: verdicts, the table, the chart and the capacity model."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from bench.capacity import Assumed, Measured, need, needs_table
from bench.chart import chart
from bench.plan import BY_KEY, PLAN
from bench.report import Report, Row
from bench.soak import Sample, growth
from bench.starts import largest_share
from bench.table import markdown

COSTS = Measured(
    command_worker=20.0,
    command_postgres=30.0,
    command_broker=10.0,
    command_wal=500.0,
    report_worker=40.0,
    report_postgres=20.0,
    report_broker=10.0,
    report_wal=300.0,
    row=400.0,
    compared=0.2,
)


def test_every_measurement_has_its_own_key() -> None:
    assert len(BY_KEY) == len(PLAN)


def test_a_rate_below_its_target_is_missed_by_a_ratio() -> None:
    row = Row(BY_KEY["dispatch/mosquitto"], (4000.0, 5000.0, 9000.0), "")
    assert (row.value, row.verdict) == (5000.0, "MISSED: 0.50 x the target")
    assert Row(row.line, (10_000.0,), "").verdict == "met"


def test_a_time_above_its_target_is_missed_by_a_ratio() -> None:
    line = BY_KEY["start.max"]
    assert Row(line, (250.0,), "").verdict == "MISSED: 2.50 x the target"
    assert Row(line, (100.0,), "").verdict == "met"


def test_a_measurement_without_a_target_has_no_verdict() -> None:
    assert Row(BY_KEY["claim.bare"], (1.0,), "").verdict == ""


def test_the_slowest_of_several_aborts_counts() -> None:
    assert Row(BY_KEY["abort.last"], (10.0, 700.0, 20.0), "").verdict == "MISSED: 1.40 x the target"


def test_a_bench_report_is_the_same_after_writing_and_reading() -> None:
    report = Report()
    report.add("flat.claim", 1.25, "1.0 / 1.1 / 1.25 ms")
    report.add("flat.claim", 1.75)
    report.note("bloat", {"row": 400.0})
    again = Report.read(json.loads(json.dumps(report.document({}, {}))))
    assert list(again.rows()) == list(report.rows())
    assert again.details == report.details


def test_a_measurement_that_is_not_in_the_plan_is_an_error() -> None:
    with pytest.raises(AssertionError, match="nothing"):
        Report().add("nothing.such", 1.0)


def test_the_table_follows_the_plan_and_marks_missed_targets() -> None:
    report = Report()
    report.add("memory.load", 250.0)
    report.add("start.median", 42.0)
    lines = markdown(report.rows()).splitlines()
    assert lines[2:] == [
        "| **Start and pace** | | | | |",
        "| start to first command on the wire, median | 42.0 ms | ≤ 100 ms | met | |",
        "| **Memory of a worker** | | | | |",
        "| peak at full load | 250 MB | ≤ 200 MB | **MISSED: 1.25 x the target** | |",
    ]


def test_the_chart_has_a_bar_for_each_rate() -> None:
    report = Report()
    for key in ("dispatch.bare/mosquitto", "dispatch/mosquitto", "dispatch.naive/mosquitto", "ingest/iotcore"):
        report.add(key, 1000.0)
    bars = ET.fromstring(chart(report)).findall(".//{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 4  # Also the axis below them.


def test_a_burst_is_a_whole_ticks_rate_and_an_even_pace_a_tenth() -> None:
    assert largest_share([(50, 1000)], width=100, of=1000) == 1.0
    even = [(at, 1) for at in range(2000)]
    assert largest_share(even, width=100, of=1000) == 0.1


def test_the_largest_share_in_a_window_is_found_at_any_start() -> None:
    assert largest_share([(0, 1), (95, 3), (130, 4), (260, 2)], width=100, of=10) == 0.7


def test_memory_growth_is_the_slope_after_the_warm_up() -> None:
    samples = [Sample(at=60.0 * n, memory=0.0, lag=0.0, table=0.0) for n in range(61)]
    values = [100.0 if n < 10 else 50.0 + n / 60 for n in range(61)]
    assert growth(samples, values) == pytest.approx(1.0)


def test_the_sizing_of_a_million_devices_in_an_hour_is_computed() -> None:
    found = need(1_000_000, 3600, COSTS, Assumed(words=12, busy=0.5))
    assert found.commands == pytest.approx(277.8, abs=0.1)
    assert found.reports == pytest.approx(3333, abs=1)
    # 278 commands at 20 µs and 3,333 reports at 40 µs are 0.14 of a core, of which half may be used.
    assert (found.workers, found.slots, found.postgres_cores) == (1, 1, 1)
    assert found.wal_mb == pytest.approx(1.14, abs=0.01)
    assert found.disk_gb == pytest.approx(0.4)
    assert found.messages == pytest.approx(7222, abs=1)


def test_a_hundred_times_the_devices_take_a_hundred_times_the_cores() -> None:
    little, much = (need(devices, 3600, COSTS, Assumed()) for devices in (10_000_000, 1_000_000_000))
    assert much.wal_mb == pytest.approx(100 * little.wal_mb)
    assert 99 * little.postgres_cores - 100 <= much.postgres_cores <= 100 * little.postgres_cores


def test_costlier_reports_need_more_slots_and_workers() -> None:
    cheap = need(100_000_000, 3600, COSTS, Assumed())
    expensive = need(100_000_000, 3600, replace(COSTS, report_worker=80.0), Assumed())
    assert expensive.slots > cheap.slots
    assert expensive.workers > cheap.workers
    assert expensive.postgres_cores == cheap.postgres_cores


def test_the_sizing_model_reads_the_reports_of_the_bench() -> None:
    run = {"microseconds": {"workers": 1.0, "postgres": 2.0, "broker": 3.0, "devices": 4.0}, "wal": 5.0}
    measured = Measured.of(
        {
            "dispatch/mosquitto": [run],
            "ingest/mosquitto": [run],
            "bloat": [{"row": 6.0}],
            "flat.verify": [{"10": [1.0], "1000": [0.007]}],
        }
    )
    assert (measured.command_worker, measured.report_broker, measured.report_wal, measured.row) == (1.0, 3.0, 5.0, 6.0)
    assert measured.compared == pytest.approx(7.0)
    assert needs_table(measured, Assumed()).count("\n") == 12
