"""The segments under quarantine, named for people where a gate is closed over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.words import group_text

MAX_NAMED = 3
"""Maximum number of segments that one text names."""


@dataclass(frozen=True, slots=True)
class QuarantinedSegment:
    """A segment under quarantine, with its labels. ``reason``: why, which begins with the name of the guardrail."""

    number: int
    labels: Mapping[str, object]
    reason: str

    @property
    def text(self) -> str:
        """Its number and its labels."""
        labels = group_text(self.labels)
        return f"segment {self.number} ({labels})" if labels else f"segment {self.number}"


def named(verdict: Verdict, found: Sequence[QuarantinedSegment]) -> Verdict:
    """The verdict of the gate ``quarantine`` with the segments that it is about. Of more than ``MAX_NAMED``, the first.

    Empty ``found``: they were released since.
    """
    if not found:
        return verdict
    shown = found[:MAX_NAMED]
    detail = [{"segment": each.number, "labels": dict(each.labels), "reason": each.reason} for each in shown]
    if len(found) == 1:
        text = f"{found[0].text} is under quarantine: {found[0].reason}"
        return replace(verdict, text=text, detail={**verdict.detail, **detail[0]})
    others = " and others" if len(found) > MAX_NAMED else ""
    text = f"{', '.join(each.text for each in shown)}{others} are under quarantine: {shown[0].reason}"
    return replace(verdict, text=text, detail={**verdict.detail, "segments": detail})
