"""The pace of a policy document: devices per minute, ramp, bytes, cap. It counts first commands only (ADR 39).

Time is divided into steps of equal length, on a grid that begins with the campaign's first claim. In each step the
share of one step may be claimed. What nobody claimed is lost, except for one device or a part of it. So the rate is
reached exactly if devices are claimed in every step.

A claim may be early or late in its step, so in the length of a tick there may be those of one step more. Therefore the
claims of the last two ticks are counted too: a device waits as long as any interval of whole steps, from one tick to
two, has its share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

from rollwave.domain.policy.document.model import PaceRule, Ramp
from rollwave.domain.policy.facts import Facts, PaceClaim, Used
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.words import GateName
from rollwave.errors import UnreadableRow

_ROUNDING = 1e-6
"""Part of a device by which sums of fractions may be too small."""


def ramped(per_minute: float, ramp: Ramp | None, succeeded: int) -> float:
    """Devices per minute after ``succeeded`` devices have succeeded, at most ``per_minute``."""
    if ramp is None:
        return per_minute
    times = succeeded // ramp.every_succeeded
    if ramp.factor > 1 and times * math.log(ramp.factor) > math.log(max(1.0, per_minute / ramp.from_)):
        return per_minute  # the power may be too large for a float
    return min(per_minute, ramp.from_ * ramp.factor**times)


@dataclass(frozen=True, slots=True)
class Rate:
    """Devices per minute, and the gate whose rule sets this rate."""

    per_minute: float
    gate: GateName


def rate_of(pace: PaceRule, *, succeeded: int, size: int | None) -> Rate | None:
    """The rate of first commands now; None: the document sets none.

    ``size``: bytes of the firmware.

    Raises:
        UnreadableRow: the pace limits bytes, and the size is unknown.
    """
    rates = []
    if pace.per_minute is not None:
        rates.append(Rate(ramped(pace.per_minute, pace.ramp, succeeded), GateName.PACE))
    if pace.bytes is not None and pace.bytes.per_second is not None:
        rates.append(Rate(60 * pace.bytes.per_second / _known(size), GateName.BYTES))
    return min(rates, key=lambda each: each.per_minute, default=None)


def require_size(rule: PaceRule | None, size: int | None) -> None:
    """Check that the firmware's size is known if the pace limits bytes.

    Raises:
        UnreadableRow: it is not.
    """
    if rule is not None and rule.bytes is not None and rule.bytes.limits:
        _known(size)


def _known(size: int | None) -> int:
    if size is None or size < 1:
        raise UnreadableRow(
            "the policy limits bytes, and the firmware's size is unknown",
            hint="Set file_size_bytes of the firmware, then start the campaign again.",
        )
    return size


MAX_CLAIMS_KEPT = 80
"""Maximum number of claims that are stored. Of more, those that follow each other soon count as one, at the last one's
time."""


@dataclass(frozen=True, slots=True)
class Step:
    """The present step. A claim stores it: :attr:`opens` and :attr:`advance`, ``used`` and ``carried``, ``recent``.

    ``length``: seconds; ``share``: devices per step, also a fraction. ``age``: seconds since the step began; ``used``:
    devices claimed in it so far; ``carried``: what was left over before it, from 0 to 1 device.
    ``advance``: seconds between the beginning of the stored step and of this one. None: the grid begins anew, so that
    this step began :attr:`age` seconds before the claim. ``tick``: seconds; ``recent``: the claims of the last two
    ticks, oldest first; ``now``: epoch seconds.
    """

    length: float
    share: float
    age: float
    used: int
    carried: float
    advance: float | None
    tick: float
    recent: tuple[PaceClaim, ...]
    now: float

    @property
    def opens(self) -> bool:
        """Whether a claim begins a step: it stores another beginning, ``carried``, and counts ``used`` from 0."""
        return self.advance is None or self.advance > 0

    @property
    def number(self) -> int:
        """Number of devices that may be claimed now."""
        return max(0, min(self._left_in_step, self._left_in_intervals))

    @property
    def _left_in_step(self) -> int:
        return max(0, math.floor(self.carried + self.share + _ROUNDING) - self.used)

    @property
    def _intervals(self) -> Iterator[tuple[float, int]]:
        """The length of each interval that is counted, and the maximum number of devices in it."""
        steps = round(self.tick / self.length)
        for number in range(steps, 2 * steps):
            yield number * self.length, max(1, math.ceil(number * self.share - _ROUNDING))

    @property
    def _left_in_intervals(self) -> int:
        older, within, left = len(self.recent), 0, math.inf
        for seconds, most in self._intervals:
            while older and self.recent[older - 1].at > self.now - seconds:
                older -= 1
                within += self.recent[older].devices
            left = min(left, most - within)
        return int(left)

    @property
    def more_in(self) -> float:
        """Seconds until another device may be claimed; 0: now."""
        return self.turn_in(0)

    def turn_in(self, ahead: int) -> float:
        """Seconds until a device with ``ahead`` others before it may be claimed, if all of these go without delay."""
        return max(self._turn_by_steps(ahead), *(self._turn_by(*each, ahead) for each in self._intervals))

    def _turn_by_steps(self, ahead: int) -> float:
        if ahead < self._left_in_step:
            return 0.0
        lacking = self.used + ahead + 1 - self.carried - self.share
        return max(1, math.ceil(lacking / self.share - _ROUNDING)) * self.length - self.age

    def _turn_by(self, seconds: float, most: int, ahead: int) -> float:
        """Seconds until intervals of this length have room for a device with ``ahead`` others before it."""
        times, ahead = divmod(ahead, most)
        free, wait = most, 0.0
        for each in reversed(self.recent):
            free -= each.devices
            if free <= ahead:
                wait = max(0.0, each.at + seconds - self.now)
                break
        return wait + times * seconds


def step_of(per_minute: float, *, tick: float, steps: int, stored: Used, now: float) -> Step:
    """The present step of a campaign with this rate.

    ``tick``: seconds; ``steps``: number of steps in a tick. A worker has more steps than a host's own loop. ``now``:
    epoch seconds.
    """
    length = tick / steps
    share = per_minute * length / 60
    claims = (tick, _recent(stored.recent, now, tick), now)
    # A step that begins in the future remains after the database's clock was set back.
    if stored.age is None or stored.age < -length:
        # The first claim stands in the middle of its step, so that later ones may be early or late by half a step.
        return Step(length, share, length / 2, 0, max(0.0, 1 - share), None, *claims)
    passed = int(max(0.0, stored.age) / length)
    if not passed:
        return Step(length, share, stored.age, stored.used, stored.carried, 0.0, *claims)
    left = max(0.0, stored.carried + share - stored.used) + share * (passed - 1)
    return Step(length, share, stored.age - passed * length, 0, min(1.0, left), passed * length, *claims)


def _recent(claims: Sequence[PaceClaim], now: float, tick: float) -> tuple[PaceClaim, ...]:
    """The claims of the last two ticks. One further in the future remains after the database's clock was set back."""
    found = [each for each in claims if now - 2 * tick < each.at < now + tick]
    if len(found) <= MAX_CLAIMS_KEPT:
        return tuple(found)
    kept, began = found[:1], found[0].at
    for each in found[1:]:
        if each.at - began < 2 * tick / MAX_CLAIMS_KEPT:
            kept[-1] = PaceClaim(each.at, kept[-1].devices + each.devices)
        else:
            kept.append(each)
            began = each.at
    return tuple(kept)


def pace(rule: PaceRule, facts: Facts, rate: Rate | None, step: Step | None) -> Verdict:
    """Open if the step has devices left at the rate that ``per_minute`` and the ramp set."""
    if rule.per_minute is None:
        return Verdict(GateName.PACE, None, "the policy sets no number of devices per minute")
    if rate is None or step is None or rate.gate is not GateName.PACE:
        detail: dict[str, object] = {"per_minute": rule.per_minute}
        return Verdict(GateName.PACE, None, "the limit on bytes per second is slower than the pace", detail=detail)
    text = f"at most {_number(rate.per_minute)} new devices a minute"
    detail = {"per_minute": round(rate.per_minute, 3), "max_per_minute": rule.per_minute}
    return _of_step(GateName.PACE, facts, step, text, detail)


def _of_step(gate: GateName, facts: Facts, step: Step, text: str, detail: Mapping[str, object]) -> Verdict:
    until = None if step.number else facts.after(step.more_in)
    if until is not None:
        text += f"; the next at {until.astimezone(UTC):%H:%M:%S} UTC"
    return Verdict(gate, step.number, text, until, {**detail, "step_seconds": step.length, "used": step.used})


def in_flight(max_in_flight: int | None, number: int) -> Verdict:
    """Open if fewer devices are in flight than the cap. ``number``: devices of the campaign in flight."""
    if max_in_flight is None:
        return Verdict(GateName.IN_FLIGHT, None, "there is no cap on devices in flight")
    return Verdict(
        GateName.IN_FLIGHT,
        max(0, max_in_flight - number),
        f"{number:,} {'device is' if number == 1 else 'devices are'} in flight, of {max_in_flight:,} at most",
        detail={"in_flight": number, "max_in_flight": max_in_flight},
    )


def max_in_flight_by_bytes(rule: PaceRule, size: int | None) -> int | None:
    """Maximum number of devices in flight by ``bytes.in_flight``, at least 1; None: there is no such limit.

    Raises:
        UnreadableRow: the firmware's size is unknown.
    """
    if rule.bytes is None or rule.bytes.in_flight is None:
        return None
    return max(1, rule.bytes.in_flight // _known(size))


def bytes_(
    rule: PaceRule, facts: Facts, rate: Rate | None, step: Step | None, *, size: int | None, number: int
) -> Verdict:
    """Open if another download fits the limits on bytes. ``number``: devices of the campaign in flight.

    A limit below one file lets one device go at a time.

    Raises:
        UnreadableRow: the firmware's size is unknown.
    """
    if rule.bytes is None or not rule.bytes.limits:
        return Verdict(GateName.BYTES, None, "there is no limit on bytes")
    detail: dict[str, object] = {"size": _known(size)}
    places = max_in_flight_by_bytes(rule, size)
    room = None if places is None else max(0, places - number)
    if room == 0:
        detail |= {"bytes_in_flight": number * _known(size), "max_bytes_in_flight": rule.bytes.in_flight}
        are = "device is" if number == 1 else "devices are"
        fit = "download fits" if places == 1 else "downloads fit"
        text = f"{number:,} {are} in flight, and {places:,} {fit} the limit on bytes in flight"
        return Verdict(GateName.BYTES, 0, text, detail=detail)
    if rate is None or step is None or rate.gate is not GateName.BYTES:
        return Verdict(GateName.BYTES, room, "another download fits the limits on bytes", detail=detail)
    text = f"at most {_number(rate.per_minute)} new devices a minute, by the limit on bytes per second"
    detail["bytes_per_second"] = rule.bytes.per_second
    verdict = _of_step(GateName.BYTES, facts, step, text, detail)
    return verdict if room is None or step.number <= room else Verdict(GateName.BYTES, room, text, detail=detail)


def _number(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 10 else f"{per_minute:.3g}"


def start_within(rule: PaceRule) -> int | None:
    """The whole seconds within which a device begins, for its command; None: at once."""
    return math.ceil(rule.start_jitter) if rule.start_jitter else None
