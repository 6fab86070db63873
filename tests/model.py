"""A reference model of one campaign: one object, no concurrency, time in whole steps.

The engine is compared with it. It shares no code with the engine. ``Timing`` gives the length of each duration in
steps, rounded up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

RANK = {"PENDING": 0, "DOWNLOADING": 1, "INSTALLING": 2, "SUCCESS": 3, "FAILED": 3, "SKIPPED": 3}
OVER = ("SUCCESS", "FAILED", "SKIPPED")
MOVING = ("DOWNLOADING", "INSTALLING")


@dataclass(frozen=True)
class Timing:
    """Durations, in steps of time."""

    tick: int = 1
    lease: int = 1
    retry: int = 1
    answer: int = 2
    progress: int = 3
    in_all: int = 10


@dataclass(frozen=True)
class Policy:
    """The campaign's own rules."""

    rate: int
    threshold: float
    min_completed: int
    max_in_flight: int | None
    canary_percent: float | None
    max_attempts: int
    retry_on: frozenset[str]


@dataclass
class Device:
    """One device. Its attempt is on its way, ``acknowledged`` by the broker or not yet, or has ``failed``."""

    name: str
    sendable: bool = True
    status: str = "PENDING"
    attempt: int = 0
    acknowledged: bool = False
    heard: bool = False
    failed: str | None = None
    progress: int = 0
    due: int | None = None
    started: int | None = None
    suspended_before: int = 0
    """The campaign's total suspension at the time when the device was started."""
    finished: str | None = None
    """The device's final status, if a host's worker has overwritten it with DOWNLOADING."""

    @property
    def waiting(self) -> bool:
        return self.status == "PENDING" and self.attempt == 0

    @property
    def open(self) -> bool:
        return self.status in MOVING or (self.status == "PENDING" and self.attempt > 0)

    def end(self, status: str) -> None:
        self.status, self.due = status, None


@dataclass(frozen=True)
class Failure:
    """A failed attempt, as in history."""

    device: str
    attempt: int
    cause: str
    actor: str
    final: bool
    event: str = "attempt_failed"


@dataclass
class Model:
    """The campaign."""

    policy: Policy
    devices: list[Device]
    timing: Timing = field(default_factory=Timing)
    now: int = 0
    status: str = "CREATED"
    succeeded: int = 0
    failed: int = 0
    sent: int = 0
    wave: int = 0
    interval: int | None = None
    used: int = 0
    wound_down: bool = False
    cancelled: bool = False
    counted: bool = True
    """Its counters have been compared with its rows, or the engine has counted it from the start."""
    counting: bool = False
    """Its counters move with its rows, though they may not have been compared with them yet."""
    planned: bool = True
    """Its waves are planned. A campaign with a canary has to be counted first."""
    listening: bool = True
    active_since: int | None = None
    """None: suspended, so deadlines stand still."""
    active_at: int | None = None
    started_at: int | None = None
    paused_at: int | None = None
    suspended_for: int = 0
    lately: int = 0
    events: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counting = self.counted

    def __getitem__(self, name: str) -> Device:
        return next(each for each in self.devices if each.name == name)

    # Requests of an operator.

    def ask(self, action: str) -> bool:
        """Start, pause, abort or cancel. Returns False if refused."""
        to = {"start": "RUNNING", "pause": "PAUSED", "abort": "ABORTED", "cancel": "ABORTED"}[action]
        allowed = {
            "start": ("CREATED", "RUNNING", "PAUSED"),
            "pause": ("RUNNING", "PAUSED"),
            "abort": ("CREATED", "RUNNING", "PAUSED", "ABORTED"),
            "cancel": ("CREATED", "RUNNING", "PAUSED", "ABORTED"),
        }
        if self.status not in allowed[action]:
            return False
        if self.status != to:
            self._become(to)
            if to == "ABORTED":
                self.skip()
        if action == "cancel" and not self.cancelled:
            self.cancelled = True
            self.events.append("cancelled")
        return True

    def _become(self, status: str) -> None:
        self.status = status
        if status == "RUNNING" and self.started_at is None:
            self.started_at = self.now
        if status == "PAUSED":
            self.paused_at = self.now
            if self.active_since is not None:
                self.active_since, self.active_at = None, self.now
        self.events.append(status.lower())

    def retry(self) -> None:
        """Give each failed device one more attempt."""
        failed = [each for each in self.devices if each.status == "FAILED" and each.sendable]
        for each in failed:
            each.attempt, each.acknowledged = max(1, each.attempt), True
            each.status, each.failed = "DOWNLOADING", each.failed or "reported"
            each.started, each.due = None, self.now
            self.retried.append(each.name)
        self.failed -= len(failed)
        if failed:
            self.events.append("devices_retried")

    # Dispatch.

    def due_again(self) -> set[str]:
        """Devices whose command may be sent again."""
        return {
            each.name
            for each in self.devices
            if (each.open and each.due is None and each.status == "PENDING")
            or (
                each.open
                and each.due is not None
                and each.due <= self.now
                and (
                    each.status == "PENDING" or not each.acknowledged or (each.failed and not self._ended_by_time(each))
                )
            )
        }

    def claim(self, claimed: Collection[str]) -> None:
        """Check that the engine claimed the right devices and not too many, and apply the claim."""
        if self.status == "RUNNING":
            self._count_first()
        if self.status != "RUNNING" or not self.listening or not self.counted:
            assert not claimed, f"{claimed} claimed for a campaign that is {self.status}, {self.listening=}"
            return
        opens = self.interval is None or self.now >= self.interval + self.timing.tick
        tokens = self.policy.rate if opens else max(0, self.policy.rate - self.used)
        again = self.due_again()
        resent = {name for name in claimed if not self[name].waiting}
        assert resent <= again, f"{resent - again} sent again before their time"
        assert len(resent) == min(tokens, len(again))
        turn = [each for each in self.devices if each.waiting][: min(self._places(), tokens - len(resent))]
        fresh = {each.name for each in turn if each.sendable}
        assert fresh == set(claimed) - resent, "lowest id first, as many as rate, wave and cap allow"
        for each in turn:
            if not each.sendable:
                each.end("SKIPPED")
        for name in claimed:
            self._open_attempt(self[name])
        if claimed:
            self.active_at = self.now if self.active_at is None else self.active_at
            self.interval, self.used = (self.now, 0) if opens else (self.interval, self.used)
            self.used += len(claimed)
            self.sent += len(fresh)

    def _places(self) -> int:
        places = 1000
        if self.policy.max_in_flight is not None:
            places = min(places, max(0, self.policy.max_in_flight - sum(each.open for each in self.devices)))
        if self._up_to() is not None:
            places = min(places, max(0, (self._up_to() or 0) - self.sent))
        return places

    def _up_to(self) -> int | None:
        if self.policy.canary_percent is None or self.wave > 0:
            return None
        return max(1, ceil(len(self.devices) * self.policy.canary_percent / 100))

    def _open_attempt(self, device: Device) -> None:
        if device.status == "PENDING" and device.acknowledged:
            device.started = None  # The device was set back by hand: its device timeout begins again.
        if device.attempt == 0 or device.acknowledged:
            device.attempt += 1
        device.acknowledged, device.heard, device.failed = False, False, None
        device.status = "DOWNLOADING" if device.status in MOVING else "PENDING"
        device.due, device.progress = self.now + self.timing.lease, 0

    def acknowledged(self, name: str, attempt: int) -> None:
        """The broker has acknowledged the command."""
        device = self[name]
        if self._sending(device, attempt):
            device.status, device.acknowledged = "DOWNLOADING", True
            self._start(device)
            device.due = min(self.now + self.timing.answer, self._last_moment(device))

    def not_taken(self, name: str, attempt: int) -> None:
        """The broker was unavailable, slow or refused the command. This is not the device's fault."""
        if self._sending(self[name], attempt):
            self[name].due = self.now + self.timing.lease

    @staticmethod
    def _sending(device: Device, attempt: int) -> bool:
        return device.open and not device.acknowledged and device.attempt == attempt

    # Reports.

    def report(self, name: str, status: str, progress: int | None = None, attempt: int | None = None) -> None:
        """Apply a report of a device."""
        device = self[name]
        if (
            not device.open
            or device.finished
            or device.failed in ("reported", "rejected")
            or attempt not in (None, device.attempt)
        ):
            return
        if RANK[status] < RANK[device.status]:
            return
        left_behind = device.status in MOVING and device.due is None
        if left_behind and device.started is not None:
            self._restart_time(device)
        until = min(self.now + self.timing.progress, self._last_moment(device))
        if left_behind:
            self._restart_time(device)
        if status == device.status:
            news = device.failed or (progress or 0) > device.progress
            if not news and device.due is not None and until < device.due:
                return
            progress = max(progress or 0, device.progress)
        self._hear(device, status, progress, until)

    def report_together(self, reports: Sequence[tuple[str, str]]) -> None:
        """Apply reports that are committed together: one after another, with one check of the guardrail."""
        policy, self.policy = self.policy, replace(self.policy, threshold=1.0)
        before = self.succeeded, self.failed
        for name, status in reports:
            self.report(name, status)
        self.policy = policy
        if (self.succeeded, self.failed) != before:
            self._judge(self.policy.min_completed)

    def _hear(self, device: Device, status: str, progress: int | None, until: int) -> None:
        first_word = not device.heard
        device.attempt, device.acknowledged, device.heard, device.failed = max(1, device.attempt), True, True, None
        self._start(device)
        device.progress = device.progress if progress is None else progress
        if status == "SUCCESS":
            device.progress = 100
            device.end("SUCCESS")
            self._count(1, 0)
        elif status == "FAILED":
            self._fail(device, "rejected" if first_word else "reported", "device")
        else:
            device.status, device.due = status, until

    def _start(self, device: Device) -> None:
        if device.started is None:
            device.started, device.suspended_before = self.now, self.suspended_for

    def _last_moment(self, device: Device) -> int:
        if device.started is None:
            return self.now + self.timing.in_all
        return device.started + self.timing.in_all + self.suspended_for - device.suspended_before

    def _fail(self, device: Device, cause: str, actor: str) -> bool:
        """An attempt has failed. Returns whether the device has failed, too."""
        tries_again = (
            cause in self.policy.retry_on
            and device.attempt < self.policy.max_attempts
            and self.status in ("RUNNING", "PAUSED")
        )
        self.failures.append(Failure(device.name, device.attempt, cause, actor, not tries_again))
        device.failed = cause
        if tries_again:
            device.due = min(self.now + self.timing.retry, self._last_moment(device))
            if actor == "device":
                device.status = "DOWNLOADING"
            return False
        device.end("FAILED")
        if actor == "device":
            self._count(0, 1)
        return True

    def _count(self, succeeded: int, failed: int) -> None:
        self.succeeded += succeeded
        self.failed += failed
        self._judge(self.policy.min_completed)

    def _judge(self, min_completed: int) -> None:
        if not self.counted:
            return
        finished = self.succeeded + self.failed
        over = finished >= max(1, min_completed) and self.failed / finished > self.policy.threshold
        if over and self.status in ("RUNNING", "PAUSED"):
            self._become("ABORTED")
            self.skip()

    def skip(self) -> None:
        """Skip devices that an aborted campaign never sent to. A command on its way has until the end of its lease."""
        for each in self.devices:
            lapsed = each.status == "PENDING" and (each.due is None or each.due <= self.now)
            if each.waiting or lapsed:
                each.end("SKIPPED")

    # Effects of time.

    def pass_time(self, steps: int) -> None:
        """Let time pass, while workers look at the campaign."""
        self.now += steps
        if self.active_since is not None:
            self.active_at = self.now

    def conduct(self, *, winds_down: bool = True) -> None:
        """Look after the campaign: deadlines, gates, completion and, if it ``winds_down``, the end after an abort."""
        if self.status in ("RUNNING", "PAUSED"):
            deadlines_run = self._deadlines_run()
            ended = self._adopt()
            if self._count_first(ended=ended):  # Then it is looked at again.
                if self.status == "ABORTED":
                    self.conduct()
                    return
                deadlines_run = self._deadlines_run()
            if not (deadlines_run and self._sweep(everyone=False)):
                self._go_on()
        elif self.status == "ABORTED":
            self.skip()
            deadlines_run = self._deadlines_run()
            self._adopt()
            self._sweep(everyone=True, deadlines_run=deadlines_run)
            if winds_down and not self.wound_down and not any(each.waiting or each.open for each in self.devices):
                self.reconcile()
                self._deadlines_run()
                self.wound_down = True

    def _count_first(self, *, ended: bool = False) -> bool:
        """Count a campaign that a host had begun, before its counters or its number of devices are used."""
        if self.counted and self.planned and not ended:
            return False
        self.reconcile_and_judge()
        self.planned = True
        return True

    def _adopt(self) -> bool:
        """Begin the timeouts of devices that an earlier worker left in progress, unless they had finished.

        Returns whether there were any.
        """
        finished = [each for each in self.devices if each.finished]
        for each in finished:
            each.attempt, each.acknowledged, each.heard = max(1, each.attempt), True, True
            self._restart_time(each)  # It counts if the device is set back by hand and reports again.
            each.end(each.finished or "")
            each.finished = None
            if self.counting:
                self.succeeded += each.status == "SUCCESS"
                self.failed += each.status == "FAILED"
        if finished:
            self.events.append("finished_restored")
        for each in self.devices:
            if each.status in MOVING and each.due is None:
                each.attempt, each.acknowledged, each.heard = max(1, each.attempt), True, True
                each.due = self.now + self.timing.progress
                self._restart_time(each)
        return bool(finished)

    def _restart_time(self, device: Device) -> None:
        """The device timeout begins now: the time before counts as suspended."""
        device.started = self.now if device.started is None else device.started
        suspended = self.now - self.active_at if self.active_since is None and self.active_at is not None else 0
        device.suspended_before = self.suspended_for + suspended - (self.now - device.started)

    def _deadlines_run(self) -> bool:
        """Deadlines do not run while nothing may be sent, nor in the look that finds that something may be sent."""
        if not self.listening or self.status == "PAUSED":
            self._suspend()
            return False
        if self.active_since is None:
            gone = 0 if self.active_at is None else self.now - self.active_at
            self.suspended_for += gone
            self.lately += gone
            self.active_since = self.active_at = self.now
            return False
        if not self._extension():
            self.lately = 0
        return True

    def _suspend(self) -> None:
        if self.active_since is not None:
            self.active_since, self.active_at = None, self.now
        elif self.active_at is None:
            known = (self.paused_at, self.started_at, self.now) if self.counting else (self.now,)
            self.active_at = next(each for each in known if each is not None)

    def _extension(self) -> int:
        """Deadlines set before a suspension are extended by its length, until none of them is left."""
        if self.active_since is None or self.now - self.active_since < max(self.timing.answer, self.timing.progress):
            return self.lately
        return 0

    def _sweep(self, *, everyone: bool, deadlines_run: bool = True) -> bool:
        """Judge the devices that are overdue. Those that reported a failure do not wait until ``deadlines_run``."""
        ended = 0
        until = self.now - (self._extension() if deadlines_run else 0)
        for each in self.devices:
            silent = each.status in MOVING and each.due is not None and each.due <= until
            if not deadlines_run and each.failed not in ("reported", "rejected"):
                continue
            if silent and each.failed and (everyone or self._ended_by_time(each)):
                standing = 0 if deadlines_run or self.active_at is None else self.now - self.active_at
                cause = "overdue" if self._out_of_time(each, standing) else each.failed
                self.failures.append(Failure(each.name, each.attempt, cause, "engine", True, "given_up"))
                each.failed = cause  # A device that is set back by hand after its timeout may report again.
                each.end("FAILED")
                ended += 1
            elif silent and not each.failed and (everyone or each.acknowledged):
                ended += self._fail(each, self._silence(each), "engine")
        if ended:
            self._count(0, ended)
        return ended > 0

    def _out_of_time(self, device: Device, standing: int = 0) -> bool:
        """``standing``: steps of a suspension that goes on. They do not count either."""
        began = device.due if device.started is None else device.started
        suspended = self.suspended_for + standing - device.suspended_before
        return began is not None and began + self.timing.in_all + suspended <= self.now

    def _ended_by_time(self, device: Device) -> bool:
        """Whether the device's time is over. That of a device that an operator retries begins with its next command."""
        return device.started is not None and self._out_of_time(device)

    def _silence(self, device: Device) -> str:
        if self._out_of_time(device):
            return "overdue"
        return "no_progress" if device.heard else "no_answer"

    def _go_on(self) -> None:
        if not self._wave_is_over():
            return
        waiting = any(each.waiting for each in self.devices)
        self.reconcile_and_judge()
        if self.status == "ABORTED":
            # The same look winds it down on the repaired counters. If the abort skipped devices, that is left to the
            # next look, since rows have changed after they were compared.
            self.conduct(winds_down=not waiting)
        elif self._wave_is_over():  # This uses the repaired counters, too.
            self._conclude()

    def _wave_is_over(self) -> bool:
        to_send = any(each.waiting for each in self.devices) and self.sent < (self._up_to() or 1000)
        return not to_send and not any(each.open for each in self.devices)

    def _conclude(self) -> None:
        waiting = any(each.waiting for each in self.devices)
        self._judge(1 if waiting else self.policy.min_completed)
        if self.status == "ABORTED":
            return
        if not waiting:
            self._become("COMPLETED")
        elif self.status == "RUNNING":
            self.wave += 1
            self.events.append("wave_opened")

    def rows(self) -> tuple[int, int, int]:
        """The campaign's (succeeded, failed, sent), counted from its rows."""
        statuses = [each.status for each in self.devices]
        sent = sum(each.attempt > 0 or each.status not in ("PENDING", "SKIPPED") for each in self.devices)
        return statuses.count("SUCCESS"), statuses.count("FAILED"), sent

    def reconcile(self) -> None:
        """Correct the counters after changes by other SQL, except if a host has left rows in progress."""
        self.counting = True
        left_behind = any(each.status in MOVING and each.due is None for each in self.devices)
        if left_behind and not self.counted and self.status in ("RUNNING", "PAUSED"):
            return
        if self.rows() != (self.succeeded, self.failed, self.sent):
            self.succeeded, self.failed, self.sent = self.rows()
            self.events.append("counters_repaired" if self.counted else "adopted")
        self.counted = True

    def reconcile_and_judge(self) -> None:
        drifted = self.rows() != (self.succeeded, self.failed, self.sent)
        self.reconcile()
        if drifted:
            self._judge(self.policy.min_completed)


def named(count: int, unsendable: Sequence[int] = ()) -> list[Device]:
    """Device names ``dev-0``, ``dev-1`` …. Devices whose numbers are in ``unsendable`` have no valid id."""
    return [
        Device(f"dev/{number}" if number in unsendable else f"dev-{number}", number not in unsendable)
        for number in range(count)
    ]
