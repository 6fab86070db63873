"""The time that counts for a campaign's deadlines: they stand still while nothing may be sent.

A campaign is *active* while commands may go out, or, once aborted, while its last devices may still report. Else it
is *suspended*: paused, or without a listener, for whatever reason. Workers look at each campaign every few seconds, and
what lies between two looks that are far apart counts as suspended too: no worker was there to send.

Times are seconds, of the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

UNSEEN_SECONDS = 30.0
"""Time between two looks that counts as active, whatever happened in it. Workers look at least every ten seconds."""

LONGEST_UNSEEN_SECONDS = 600.0
"""Time between two looks that counts as active where a listener was subscribed all the while: a host may look as seldom
as it likes."""

NOTE_EVERY_SECONDS = 5.0
"""Time after which it is written down again that a campaign is active."""


class Change(StrEnum):
    """What is to be written down about a campaign."""

    NONE = "none"
    SUSPEND = "suspend"
    ACTIVATE = "activate"
    NOTE = "note"
    """It is still active."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What is known of a campaign.

    ``active_for``: time since it became active (None: it is suspended). ``seen_ago``: time since it was last known to
    be active (None: it never was). ``suspended_for``: time for which it was suspended, in all; ``lately``: the part of
    it by which deadlines that were set before may still have to be later.
    """

    active_for: float | None
    seen_ago: float | None
    suspended_for: float
    lately: float

    def change(self, *, active: bool, heard_for: float = inf, tick: float = 0.0) -> Change:
        """What follows from a look that finds the campaign ``active``, or suspended.

        ``heard_for``: for how long a listener has been subscribed without a gap. ``tick``: a host that looks itself
        does so once in this time.
        """
        seen_ago = self.seen_ago or 0.0
        if not active:
            return Change.SUSPEND if self.active_for is not None or self.seen_ago is None else Change.NONE
        longest = max(LONGEST_UNSEEN_SECONDS, 3 * tick)
        if self.active_for is None or seen_ago > longest or (seen_ago > UNSEEN_SECONDS and heard_for < seen_ago):
            return Change.ACTIVATE
        return Change.NOTE if seen_ago > NOTE_EVERY_SECONDS or min(seen_ago, self.active_for) < 0 else Change.NONE

    def extension(self, longest: float) -> float:
        """Seconds by which deadlines are later than they were set; ``longest``: the longest time that one is set for.

        A deadline that was set before a suspension is later by the length of that. Once the campaign has been active
        for as long as the longest deadline, every deadline that runs was set since.
        """
        return self.lately if self.active_for is None or self.active_for < longest else 0.0
