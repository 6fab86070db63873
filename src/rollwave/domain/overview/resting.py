"""The sentence about a campaign that needs nobody: what it does, or how it ended."""

from __future__ import annotations

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview.facts import OverviewFacts
from rollwave.domain.overview.texts import after_colon, many, utc
from rollwave.domain.policy.words import WaveState


def text(facts: OverviewFacts) -> str:
    """The sentence, without its full stop."""
    match facts.status:
        case CampaignStatus.CREATED:
            return _created(facts)
        case CampaignStatus.RUNNING:
            return _running(facts)
        case CampaignStatus.PAUSED:
            return f"Paused by an operator{_in_progress(facts)}"
        case CampaignStatus.COMPLETED:
            return f"Completed: {_outcome(facts)}"
        case CampaignStatus.ABORTED:
            return f"{_stopped(facts)}; {_outcome(facts)}{_in_progress(facts)}"


def _stopped(facts: OverviewFacts) -> str:
    word = "Cancelled" if facts.cancelled else "Aborted"
    reason = facts.reason or ""
    return f"{word}{reason[len(word) :] if reason.startswith(word.lower()) else after_colon(reason)}"


def _created(facts: OverviewFacts) -> str:
    if facts.targeted is not None:
        return f"Not started; {_targeting(facts)}"
    return f"Not started; {many(facts.devices.total, 'device')} {'waits' if facts.devices.total == 1 else 'wait'}"


def _running(facts: OverviewFacts) -> str:
    if facts.targeted is not None:
        return f"Running; {_targeting(facts)}"
    wave = facts.present_wave
    if wave is not None and wave.state == WaveState.SOAKING:
        until = "" if wave.until is None else f" until {utc(wave.until)}"
        return f"Wave {wave.name} soaks{until}; {_so_far(facts)}"
    return f"Running; {_so_far(facts)}"


def _targeting(facts: OverviewFacts) -> str:
    return f"{facts.targeted or 0:,} of {facts.wanted:,} devices are targeted so far"


def _so_far(facts: OverviewFacts) -> str:
    devices = facts.devices
    failed = f", {devices.failed:,} failed" if devices.failed else ", none failed"
    return f"{devices.finished:,} of {devices.total:,} devices finished{failed if devices.finished else ''}"


def _outcome(facts: OverviewFacts) -> str:
    devices = facts.devices
    runs = "run" if devices.succeeded != 1 else "runs"
    parts = [f"{devices.succeeded:,} of {many(devices.total, 'device')} {runs} {facts.version or 'the firmware'}"]
    if devices.failed:
        parts.append(f"{devices.failed:,} failed")
    if devices.skipped:
        parts.append(f"{devices.skipped:,} skipped")
    return ", ".join(parts)


def _in_progress(facts: OverviewFacts) -> str:
    in_progress = facts.devices.in_progress
    return f"; {in_progress:,} in progress may still finish" if in_progress else ""
