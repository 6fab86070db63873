"""What a policy document allows that its author may not have meant. A dry run answers these warnings."""

from __future__ import annotations

from collections.abc import Iterator

from rollwave.domain.policy.document.model import Method, PaceRule, PolicyDocument, ScheduleRule


def warnings(document: PolicyDocument) -> Iterator[str]:
    """Sentences for people."""
    pace = document.pace or PaceRule()
    if pace.per_minute is None and pace.max_in_flight is None and pace.bytes is None:
        yield "pace sets no limit: every device that may go is sent to at once"
    if document.guardrails == ():
        yield "guardrails is empty: failures never stop the campaign"
    for rule in document.guardrails or ():
        if rule.threshold.fraction == 1:
            yield f"the guardrail {rule.name} never trips: its threshold is 100 %"
        if rule.method is Method.SEQUENTIAL and document.order not in {None, "hash"}:
            yield f"the guardrail {rule.name} is sequential: without the order hash, clumps of failures trip it"
    if (document.schedule or ScheduleRule()).ignore_freezes:
        yield "schedule.ignore_freezes: freezes do not stop the campaign, and to start it takes an approver"
