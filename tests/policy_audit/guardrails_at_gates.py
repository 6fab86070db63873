"""No gate opens by itself while a guardrail is over its threshold, whatever its minimum of finished devices.

The numbers of its test are compared with the rows in each snapshot (``guardrails.py``). At the moment at which a gate
opened, a test had failed on at least as many devices as in the snapshot before, and counted at most as many as in the
snapshot after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.policy_audit.guardrails import evidence, rules_of
from tests.policy_audit.snapshot import Campaign, Json, Row, share


def over(campaign: Campaign, before: Campaign, number: int) -> Iterator[str]:
    """The tests that were over their threshold when the gate of a wave opened between two snapshots.

    A test that has tripped since has acted: its segment is under quarantine, or it has begun anew after its pause. One
    that an edit has changed has begun anew.
    """
    of_documents = [{rule["name"]: rule for rule in rules_of(each)} for each in campaign.documents_since(before)]
    earlier = {(each["number"], each["generation"]): each for each in before.tests}
    for test in campaign.tests:
        known = earlier.get((test["number"], test["generation"]))
        rules = [each.get(test["guardrail"]) for each in of_documents]
        if known is None or test["tripped_at"] is not None or rules[0] is None or rules != rules[:1] * len(rules):
            continue
        if rules[0].get("scope") == "wave" and test["wave"] != number:
            continue
        if _is_over(rules[0], known, test, campaign, before):
            yield (
                f"wave {number} was passed though guardrail {test['guardrail']} was over its threshold: "
                f"{known['failed']} of at most {test['finished']} finished devices had failed"
            )


def _is_over(rule: Json, known: Row, test: Row, campaign: Campaign, before: Campaign) -> bool:
    threshold = share(rule.get("threshold", "10%"))
    if rule.get("method", "ratio") == "ratio":
        return bool(known["failed"] > threshold * test["finished"])
    failed, sent = _prefixes(before, test, "failed"), _prefixes(campaign, test, "dispatched")
    enough = test["of_groups"] / rule.get("alpha", 0.01)
    return any(
        evidence(failed[first], sent[first], float(threshold)) >= enough for first in failed.keys() & sent.keys()
    )


def _prefixes(campaign: Campaign, test: Row, column: str) -> Mapping[int, int]:
    """Sums of a column over the buckets of a test, up to and with each bucket."""
    found, total = {}, 0
    for each in sorted(campaign.buckets, key=lambda each: int(each["first"])):
        if each["test"] == test["number"]:
            total += each[column]
            found[each["first"]] = total
    return found
