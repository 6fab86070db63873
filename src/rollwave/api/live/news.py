"""What a stream tells a client. One snapshot of a campaign is shared by all of its streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

from rollwave.domain.overview.field import Field, Run
from rollwave.store.moments import Document

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A campaign at one moment.

    Attributes:
        id: a hash of the content without its time: equal content has an equal id, in every process.
        document: the overview.
        text: the same as JSON.
    """

    id: str
    document: Document
    text: str
    _made: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Document, text: str) -> Snapshot:
        """The snapshot of an overview. ``text``: the overview as JSON, an object with ``as_of``."""
        content = json.loads(text)
        content.pop("as_of", None)
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return cls(digest[:16], document, text)

    def made(self, name: str, make: Callable[[Document], T]) -> T:
        """What ``make`` makes of the document, made once for all streams. ``name`` tells it from other things."""
        if name not in self._made:
            self._made[name] = make(self.document)
        found: T = self._made[name]
        return found


class FieldNews(NamedTuple):
    """Changes of the devices' states.

    Apply ``runs`` to a field of this ``generation`` with a sequence from ``since`` to below ``sequence``. A client with
    an older field, or one of another generation, reads the whole field again. A newer field has the changes already.
    """

    generation: str
    since: int
    sequence: int
    runs: tuple[Run, ...]

    @classmethod
    def at(cls, found: Field) -> FieldNews:
        """No changes: it only tells the client where the stream is."""
        return cls(found.generation, found.sequence, found.sequence, ())

    def to_json(self) -> Document:
        """The data of the event ``field``."""
        return {**self._asdict(), "runs": [list(each) for each in self.runs]}


class Beat(NamedTuple):
    """The stream is alive. ``at``: the server's time."""

    at: datetime


class Trouble(NamedTuple):
    """The campaign cannot be read now. The stream goes on, and tells when it can be read again: ``text`` is empty."""

    text: str


class End(NamedTuple):
    """The stream ends, and connecting again is of no use: ``why``."""

    why: str


SIGNED_OUT = "signed out"
"""The key, or the session, has expired or was revoked: connecting again is of no use."""
GONE = "campaign deleted"

News: TypeAlias = Snapshot | FieldNews | Beat | Trouble | End
