"""The questions before an action on a campaign: what will happen, and to how many devices. Pure texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rollwave.console.formats import count, duration, number

NAME_FROM = 1000
"""Abort and cancel ask for the campaign's name if they affect more devices than this."""

Overview = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A dialog.

    Attributes:
        text: the question.
        facts: sentences that say what will happen.
        action: the last part of the path that the answer is sent to.
        verb: the text of the button that does it.
        harmless: the text of the button that closes the dialog, which has the focus.
        dangerous: whether the action cannot be undone.
        pause: whether the dialog offers to pause instead.
        name: what must be typed; empty: nothing.
        hidden: values that are sent along, by name.
        reason: whether a reason may be given.
    """

    text: str
    facts: Sequence[str]
    action: str
    verb: str
    harmless: str = "Back"
    dangerous: bool = True
    pause: bool = False
    name: str = ""
    hidden: Mapping[str, str] = field(default_factory=dict)
    reason: bool = False


def called(overview: Overview) -> str:
    """The campaign's name, or "campaign 7" if it has none."""
    return overview["name"] or f"campaign {overview['campaign_id']}"


def _quoted(overview: Overview) -> str:
    return f'"{overview["name"]}"' if overview["name"] else called(overview)


def _in_progress(overview: Overview) -> int:
    devices = overview["devices"]
    found: int = devices["DOWNLOADING"] + devices["INSTALLING"]
    return found


def _keep(overview: Overview) -> str:
    return {"RUNNING": "Keep running", "PAUSED": "Keep paused", "CREATED": "Keep it"}.get(overview["status"], "Back")


def abort(overview: Overview) -> Question:
    """Before a campaign is aborted."""
    devices, running = overview["devices"], overview["status"] == "RUNNING"
    pending, flight, done = devices["PENDING"], _in_progress(overview), devices["SUCCESS"]
    facts = [f"{count(pending, 'device')} not sent yet will be skipped."] if pending else []
    facts += [f"{number(flight)} in progress may still finish."] if flight else []
    facts += [f"{_keeps(done, overview)}; nothing is rolled back."] if done else []
    facts += ["This can't be undone; to stop for now, pause." if running else "This can't be undone."]
    verb = f"Abort, skip {number(pending)}" if pending else "Abort"
    return Question(
        f"Abort {_quoted(overview)}?",
        facts,
        "abort",
        verb,
        harmless=_keep(overview),
        pause=running,
        name=called(overview) if pending > NAME_FROM else "",
        hidden={"asked": str(pending)},
        reason=True,
    )


def cancel(overview: Overview) -> Question:
    """Before a campaign is cancelled: it is aborted, and devices in progress are told to stop."""
    devices = overview["devices"]
    pending, flight, done = devices["PENDING"], _in_progress(overview), devices["SUCCESS"]
    facts = [f"{number(pending)} not sent yet will be skipped."] if pending else []
    if flight:
        told = "is told to stop; it" if flight == 1 else "are told to stop; each"
        facts.append(
            f"{number(flight)} in progress {told} either stops and counts as failed (CANCELLED) or carries on."
        )
    facts += [f"{_keeps(done, overview)}."] if done else []
    facts.append("This can't be undone.")
    return Question(
        f"Cancel {_quoted(overview)} and call devices back?",
        facts,
        "cancel",
        f"Cancel, tell {number(flight)}" if flight else "Cancel",
        harmless=_keep(overview),
        name=called(overview) if pending + flight > NAME_FROM else "",
        hidden={"asked": str(pending)},
        reason=True,
    )


def _keeps(done: int, overview: Overview) -> str:
    return f"{number(done)} {'keeps' if done == 1 else 'keep'} {overview['version'] or 'the new version'}"


def retry(overview: Overview, *, code: str | None, devices: int | None) -> Question:
    """Before failed devices get another attempt. ``devices``: how many; None: it is not known for this code."""
    how_many = "failed devices" if devices is None else count(devices, "failed device")
    each = "Each gets one more attempt, also above the maximum of the policy."
    later = ["They are sent to when the campaign is resumed."] if overview["status"] == "PAUSED" else []
    return Question(
        f"Retry {how_many}{f' ({code})' if code else ''}?",
        [each, *later],
        "retry",
        "Retry" if devices is None else f"Retry {number(devices)}",
        dangerous=False,
        hidden={"code": code} if code else {},
    )


def promote(overview: Overview, name: str) -> Question | None:
    """Before a person opens the wave after ``name``. None: there is no such wave, or it is the last one."""
    waves = overview["waves"]
    place = next((index for index, each in enumerate(waves) if each["name"] == name), None)
    if place is None or place + 1 >= len(waves):
        return None
    wave, following = waves[place], waves[place + 1]
    return Question(
        f"Open {following['name']} now?",
        [f"{count(following['size'], 'device')}{_skips(wave, overview['as_of'])}."],
        "promote",
        f"Open {following['name']}",
        dangerous=False,
        hidden={"wave": name},
        reason=True,
    )


def _skips(wave: Mapping[str, Any], now: datetime | str) -> str:
    match wave["waits_for"]:
        case "soak" if wave["until"]:
            left = (_moment(wave["until"]) - _moment(now)).total_seconds()
            return f"; skips {duration(max(left, 0))} of soak"
        case "approval":
            return f"; approves wave {wave['name']}"
        case "gate":
            return f", although the gate of wave {wave['name']} failed"
        case _:
            return f"; wave {wave['name']} is not finished"


def _moment(value: datetime | str) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.astimezone(UTC)


def without_numbers(campaign_id: int, action: str, *, hidden: Mapping[str, str]) -> Question:
    """Before an action on a campaign whose numbers cannot be read. It asks for no name: the action must be possible."""
    facts = ["The numbers of devices cannot be read now."]
    dangerous = action in {"abort", "cancel"}
    facts += ["This can't be undone."] if dangerous else []
    wave = hidden.get("wave", "")
    what, verb = {
        "promote": (f"Open the wave after {wave} of", "Open the next wave"),
        "retry": ("Retry failed devices of", "Retry"),
    }.get(action, (action.capitalize(), action.capitalize()))
    return Question(
        f"{what} campaign {campaign_id}?",
        facts,
        action,
        verb,
        dangerous=dangerous,
        pause=dangerous,
        hidden=hidden,
        reason=action != "retry",
    )


def is_typed(question: Question, typed: str) -> bool:
    """Whether the name was typed, if it must be. Blanks around it and the case of letters do not matter."""
    return not question.name or typed.strip().casefold() == question.name.strip().casefold()


def started(overview: Overview | None, *, resumed: bool) -> str:
    """What was done by starting or resuming. ``overview`` None, here and below: the numbers cannot be read."""
    text = "Resumed." if resumed else "Started."
    return text if overview is None else f"{text} {count(overview['devices']['PENDING'], 'device')} still to be sent."


def paused(overview: Overview | None) -> str:
    """What was done by pausing."""
    if overview is None:
        return "Paused. Devices in progress may still finish."
    flight = _in_progress(overview)
    return (
        f"Paused. {count(flight, 'device')} in progress may still finish."
        if flight
        else "Paused. Nothing is in progress."
    )


def stopped(before: Overview | None, overview: Overview | None, *, cancelled: bool, asked: int | None = None) -> str:
    """What was done by aborting or cancelling, by the counts before and after it.

    ``asked``: the number of devices in the question that were not sent to. The difference was sent to meanwhile.
    """
    word = "Cancelled" if cancelled else "Aborted"
    if before is None or overview is None:
        rest = "Devices in progress are told to stop" if cancelled else "Devices in progress may still finish"
        return f"{word}. Devices not sent to are skipped. {rest}."
    devices, flight = overview["devices"], _in_progress(overview)
    skipped = devices["SKIPPED"] - before["devices"]["SKIPPED"]
    parts = [f"{count(skipped, 'device')} skipped"]
    if devices["PENDING"]:
        parts.append(f"{number(devices['PENDING'])} more are being skipped")
    meanwhile = 0 if asked is None else asked - skipped - devices["PENDING"]
    if meanwhile > 0:
        parts.append(f"{number(meanwhile)} had been sent to meanwhile")
    if flight:
        parts.append(f"{number(flight)} in progress {'are told to stop' if cancelled else 'may still finish'}")
    return f"{word}. {'; '.join(parts)}."


def opened(overview: Overview | None, wave: str) -> str:
    """What was done by promoting ``wave``. ``overview``: with the names of ``waves``."""
    names = [] if overview is None else overview["waves"]
    following = names[names.index(wave) + 1 :] if wave in names else []
    if following and following[0]:
        return f"{following[0]} is open."
    return f"The gate of wave {wave} is open."
