"""Failed devices grouped by what they have in common: the failure, one label, and the version that they came from.

The label is the one whose values separate failed devices from succeeded ones best.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from math import log, log2, sqrt
from typing import NamedTuple

from rollwave.domain.policy.document.fields import KEY_PATTERN
from rollwave.errors import InvalidInput

MAX_VALUES = 50
"""Maximum number of values of a label that may explain failures. One with more may be a serial number."""

MAX_MESSAGE = 80
"""Maximum number of characters of an error message that distinguish causes."""

CERTAINTY = 3.0
"""Standard deviations above chance that a label must separate: of a thousand useless labels, one does."""

_PART = rf"(code|from_version|label(:{KEY_PATTERN.strip('^$')})?)"
BY_PATTERN = rf"^{_PART}(,{_PART})*$"
"""What :func:`parse_by` reads."""

BY_CODE, BY_LABEL, BY_VERSION = "code", "label", "from_version"

_REASONS: Mapping[str, str] = {
    "no_answer": "no answer",
    "no_progress": "no progress",
    "reported": "failed without a code",
    "rejected": "refused without a code",
    "overdue": "device timeout is over",
}
_digits = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class By:
    """What failures are grouped by. ``label``: its key; None: by no label. ``best_label``: choose the label."""

    code: bool = True
    label: str | None = None
    best_label: bool = True
    version: bool = True


class Failure(NamedTuple):
    """A failed device. ``reason``: of ``domain.retry.Reason``; ``version``: what it ran when it last said so."""

    code: str | None
    reason: str | None
    message: str | None
    version: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cause:
    """Failed devices that have all of this in common. ``label``: key and value; the value None: they do not have it.

    ``reason`` and ``message`` are of failures without a code; digits of the message are ``#``.
    """

    devices: int
    code: str | None = None
    reason: str | None = None
    message: str | None = None
    label: tuple[str, str | None] | None = None
    version: str | None = None
    text: str = ""

    def to_json(self) -> dict[str, str | int | None]:
        """The cause as the API shows it. ``label`` is ``key=value``, or ``key=`` of devices without the label."""
        return {
            "devices": self.devices,
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "label": None if self.label is None else f"{self.label[0]}={self.label[1] or ''}",
            "from_version": self.version,
            "text": self.text,
        }


def parse_by(text: str | None) -> By:
    """Read ``by``, a list such as ``code,label:revision,from_version``. None: the failure, the best label, the version.

    A part may be repeated; of several labels, the last one counts.

    Raises:
        InvalidInput: a part is unknown.
    """
    by = By() if text is None else By(code=False, best_label=False, version=False)
    for part in () if text is None else text.split(","):
        kind, has_key, key = part.partition(":")
        if part == BY_CODE:
            by = replace(by, code=True)
        elif part == BY_VERSION:
            by = replace(by, version=True)
        elif kind == BY_LABEL and (re.fullmatch(KEY_PATTERN, key) or not has_key):
            by = replace(by, label=key or None, best_label=not has_key)
        else:
            raise InvalidInput(
                f"cannot group by {part[:100]!r}",
                hint="Use a list of code, label:KEY (or label, for the label that explains most) and from_version.",
                field="by",
            )
    return by


def best_label(failed: Sequence[Mapping[str, str]], succeeded: Sequence[Mapping[str, str]]) -> str | None:
    """The label whose values say most about whether a device fails. None: no label says more than chance would.

    Both are the labels of samples of devices; a missing label counts as a value. The measure is the Jensen-Shannon
    divergence in bits, which does not depend on the sizes of the samples, less what chance adds to it.
    """
    keys = sorted({key for labels in (*failed, *succeeded) for key in labels})
    scored = [(_score(key, failed, succeeded), key) for key in keys]
    best = max(scored, key=lambda each: each[0], default=(0.0, ""))  # the first one of equal ones
    return best[1] if best[0] > 0 else None


def _score(key: str, failed: Sequence[Mapping[str, str]], succeeded: Sequence[Mapping[str, str]]) -> float:
    """How well a label separates, in bits; 0: not at all, or not with certainty."""
    bad, good = (Counter(labels.get(key) for labels in of) for of in (failed, succeeded))
    values = len(bad | good)
    if not failed or not succeeded or not 2 <= values <= MAX_VALUES:
        return 0.0
    devices = len(failed) + len(succeeded)
    information = _divergence(bad, good, len(failed) / devices)
    if 2 * devices * information * log(2) <= _chi_squared(values - 1):
        return 0.0
    # round: sums in another order must not decide between two labels that separate equally.
    return round(max(0.0, _divergence(bad, good, 0.5) - (values - 1) / (2 * devices * log(2))), 9)


def _divergence(bad: Counter[str | None], good: Counter[str | None], weight: float) -> float:
    """The information in bits that the value gives about the outcome, if failed devices are this share of all."""
    of_bad, of_good, total = bad.total(), good.total(), 0.0
    for value in bad.keys() | good.keys():
        p, q = weight * bad[value] / of_bad, (1 - weight) * good[value] / of_good
        total += sum(
            part * log2(part / (of_kind * (p + q))) for part, of_kind in ((p, weight), (q, 1 - weight)) if part
        )
    return total


def _chi_squared(degrees: int) -> float:
    """The value that chance exceeds as rarely as ``CERTAINTY`` says (Wilson-Hilferty)."""
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + CERTAINTY * sqrt(spread)) ** 3)


def group(failures: Iterable[Failure], by: By) -> list[Cause]:
    """The causes of these failures, those with most devices first. ``by.label`` is the label, also the best one."""
    found = Counter(_key(each, by) for each in failures)
    causes = [_cause(key, number, by) for key, number in found.items()]
    return sorted(causes, key=lambda each: (-each.devices, each.text))


class _Key(NamedTuple):
    code: str | None
    reason: str | None
    message: str | None
    label: str | None
    version: str | None


def _key(failure: Failure, by: By) -> _Key:
    no_code = by.code and failure.code is None
    return _Key(
        failure.code if by.code else None,
        failure.reason if no_code else None,
        _shortened(failure.message) if no_code else None,
        failure.labels.get(by.label) if by.label is not None else None,
        failure.version if by.version else None,
    )


def _shortened(message: str | None) -> str | None:
    if not message or not message.strip():
        return None
    return _digits.sub("#", message.strip().splitlines()[0][:MAX_MESSAGE])


def _cause(key: _Key, devices: int, by: By) -> Cause:
    label = None if by.label is None else (by.label, key.label)
    parts = [failure_text(key.code, key.reason, key.message)] if by.code else []
    if label is not None:
        parts.append(f"no {label[0]}" if label[1] is None else f"{label[0]}={label[1]}")
    if by.version:
        parts.append("version unknown" if key.version is None else f"from {key.version}")
    number = "1 device" if devices == 1 else f"{devices:,} devices"
    return Cause(devices, key.code, key.reason, key.message, label, key.version, f"{' · '.join(parts)}: {number}")


def failure_text(code: str | None, reason: str | None, message: str | None) -> str:
    """The failure in words: its code; without one, why the attempt counts as failed, and the error message."""
    if code is not None:
        return code
    words = _REASONS.get(reason or "", "failed without a code")
    return f"{words} ({message})" if message else words


def sampled_text(read: int, failed: int) -> str:
    """What share of the failures the causes are of; empty: of all."""
    return f"of the last {read:,} of {failed:,} failures" if read < failed else ""


def labels_of(device_type: str | None, time_zone: str | None, attributes: Mapping[str, object]) -> dict[str, str]:
    """The labels that may explain failures, as text. A label is a text or a number; ``version`` is not one of them."""
    found = {key: text for key, value in attributes.items() if (text := _text(value)) is not None}
    found |= {
        key: value for key, value in (("device_type", device_type), ("time_zone", time_zone)) if value is not None
    }
    return {key: value for key, value in found.items() if key not in _NOT_LABELS}


_NOT_LABELS: Collection[str] = frozenset({"version", "last_seen", "device_id"})


def _text(value: object) -> str | None:
    if isinstance(value, Decimal):  # as PostgreSQL writes it without zeros at its end (selector_sql.label_text)
        return f"{value.normalize():f}"
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
