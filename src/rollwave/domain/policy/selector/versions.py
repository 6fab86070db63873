"""The order of versions: that of Semantic Versioning, for any text.

A leading ``v`` and everything after ``+`` do not count. Everything after the first ``-`` is a pre-release, which comes
before the release. A release is compared number by number, and ``1.0`` equals ``1.0.0``; a word in it comes before the
end, and the end before a number: ``1.2rc1``, ``1.2``, ``1.2.1``. ``rollwave_version_key`` is the same rule in SQL.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

MAX_CHARACTERS = 200
"""Characters after these do not count."""

NUMBER_DIGITS = 20
"""Numbers of more digits are compared as text."""

VersionKey: TypeAlias = tuple[tuple[tuple[int, str], ...], tuple[int, tuple[tuple[int, str], ...]]]

_WORD, _END, _NUMBER = 0, 1, 2
_SEPARATORS = re.compile(r"[.\u0001-\u0020]+")
_IGNORED = re.compile(r"^[vV](?=[0-9])|\+.*", re.DOTALL)
_ZEROS = re.compile(r"(\.0+)+\Z")


@lru_cache(maxsize=1024)
def version_key(version: str) -> VersionKey:
    """A key: versions are in the order of their keys, and equal if their keys are."""
    release, _, extra = _IGNORED.sub("", version[:MAX_CHARACTERS]).partition("-")
    release = _ZEROS.sub("", _SEPARATORS.sub(".", release))
    tokens = [
        (_NUMBER, _number(each)) if each[0] in "0123456789" else (_WORD, each)
        for each in re.findall(r"[0-9]+|[^0-9.]+", release)
    ]
    identifiers = [each for each in _SEPARATORS.split(extra) if each]
    pre_release = [(0, _number(each)) if re.fullmatch("[0-9]+", each) else (1, each) for each in identifiers]
    return (*tokens, (_END, "")), (0, tuple(pre_release)) if pre_release else (1, ())


def _number(digits: str) -> str:
    return digits.lstrip("0").zfill(NUMBER_DIGITS)
