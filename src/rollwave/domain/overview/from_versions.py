"""The versions that the devices of a campaign came from, by a sample of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

MAX_VERSIONS = 3
"""Maximum number of versions that are shown."""


def most_common(versions: Iterable[str | None]) -> list[tuple[str, int]]:
    """The most common versions with the number of devices of each. None: a device of which no version is known."""
    counted = Counter(each for each in versions if each)
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))[:MAX_VERSIONS]


def from_versions(stored: Mapping[str, Any] | None, total: int) -> list[dict[str, Any]]:
    """The versions as ``from_versions`` of the overview, with their devices estimated for ``total`` devices.

    ``stored``: number of ``devices`` in the sample, and its ``versions`` with their numbers. None: there is none yet.
    """
    try:
        sample = int((stored or {})["devices"])
        counted = [(str(version), int(devices)) for version, devices in (stored or {})["versions"]]
    except (KeyError, TypeError, ValueError):  # not looked at yet, or other SQL has written it
        return []
    if sample <= 0:
        return []
    return [{"version": version, "devices": round(devices * total / sample)} for version, devices in counted]
