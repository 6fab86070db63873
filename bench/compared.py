"""Rates beside their limits: one after the other, again and again, so that both meet the same machine."""

from __future__ import annotations

from bench import bare, naive, rates
from bench.session import Session

NAIVE = 200
"""Devices, or reports, that the naive design is watched for."""

NAIVE_DEVICES = 20_000
HALF_LOAD = 4.0
"""Seconds of reports at half the rate that was just measured."""


async def _once(session: Session, broker: str) -> None:
    """Every rate once."""
    number, add = session.options.devices, session.report.add
    few = min(number, rates.MOST_REPORTS)
    add("claim.bare", await bare.claim(session.lab, few))
    add(f"publish.bare/{broker}", await bare.publish(session.lab, broker, few))
    limit = await bare.dispatch(session.lab, broker, few)
    mine = await rates.dispatch(session.lab, broker, number)
    slow = await naive.dispatch(session.lab, broker, min(number, NAIVE_DEVICES), NAIVE)
    _compare(session, "dispatch", broker, limit, mine, slow)

    add("apply.bare", await bare.apply(session.lab, few))
    limit = await bare.ingest(session.lab, broker, few)
    taken = await rates.ingest(session.lab, broker, number)
    slow = await naive.ingest(session.lab, broker, min(number, NAIVE_DEVICES), NAIVE)
    _compare(session, "ingest", broker, limit, taken, slow)

    if broker == session.options.brokers[0]:
        half = taken.per_second / 2
        p50, p99 = await rates.latency(session.lab, broker, number, half, HALF_LOAD)
        add("reports.p50", p50 * 1000)
        add("reports.p99", p99 * 1000, f"at {half:,.0f} reports a second")


def _compare(session: Session, what: str, broker: str, limit: float, mine: rates.Rate, slow: float) -> None:
    add = session.report.add
    add(f"{what}.bare/{broker}", limit)
    add(f"{what}/{broker}", mine.per_second, mine.microseconds.told())
    add(f"{what}.ratio/{broker}", mine.per_second / limit)
    add(f"{what}.naive/{broker}", slow)
    add(f"{what}.times/{broker}", mine.per_second / slow)
    add("memory.load", mine.peak_memory)
    session.report.note(f"{what}/{broker}", mine)


async def measure(session: Session) -> None:
    """So many runs of everything."""
    for number in session.runs(leaving=45.0):
        for broker in session.options.brokers:
            session.say(f"rates: run {number}, {broker}")
            await _once(session, broker)
