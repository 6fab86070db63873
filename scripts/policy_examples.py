"""An example of each key of a policy document, with what it does: a column of the tables of its reference page."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "document": {
        "version": ("version: 1", "the only version so far"),
        "order": ("order: label:floor", "floor 2 before floor 10, and devices without the label last"),
        "waves": (
            "waves: [{name: canary, size: 50}, {name: rest}]",
            "50 devices, then the others",
        ),
        "pace": ("pace: {max_in_flight: 100}", "at most 100 devices in flight at any time"),
        "budgets": ("budgets: [{per: site, max_in_flight: 1}]", "one device of each site at a time"),
        "guardrails": ("guardrails: []", "failures never stop the campaign"),
        "retry": ("retry: {max_attempts: 1}", "a silent device fails at its first deadline"),
        "deadlines": ("deadlines: {progress: 1h}", "a device that is silent for an hour is sent to again, or fails"),
        "schedule": ("schedule: {end: 2027-01-31T00:00:00Z}", "devices that were not sent to by then are skipped"),
    },
    "wave": {
        "name": ("name: canary", "`rollwave campaign promote 7 canary` opens its gate"),
        "size": ('size: "5%"', "of 1,010 targets: 51 devices"),
        "select": ("select: 'ring == canary and version < 2.0'", "canaries that run an older version"),
        "max_in_flight": (
            "max_in_flight: 10",
            "at most 10; once the gate is open, what `min_finished` left over goes without this limit",
        ),
        "gate": ("gate: {soak: 1d}", "the next wave opens a day after this one is finished"),
    },
    "gate": {
        "success_rate": ('success_rate: "98%"', "49 of 50 finished devices are enough, 48 are not"),
        "min_finished": ('min_finished: "90%"', "of 50 devices, 45; the last five may be offline"),
        "soak": ("soak: 2h", "a failure after 90 minutes starts the two hours again"),
        "approval": ("approval: true", "waits for `rollwave campaign promote` by another key with the role approver"),
        "on_fail": ("on_fail: abort", "the campaign ends instead of waiting for a person"),
    },
    "pace": {
        "per_minute": ("per_minute: 600", "10 devices a second"),
        "ramp": (
            "ramp: {from: 50, factor: 2, every_succeeded: 500}",
            "50 a minute, 100 after 500 successes, 200 after 1,000",
        ),
        "max_in_flight": ("max_in_flight: 2000", "the next device goes when one of the 2,000 has ended"),
        "bytes": ("bytes: {in_flight: 1GiB}", "of a file of 100 MiB, ten downloads at a time"),
        "start_jitter": ("start_jitter: 10m", "the command says `start_within: 600`"),
    },
    "ramp": {
        "from": ("from: 50", "50 devices a minute until the first step"),
        "factor": ("factor: 2", "the pace doubles at each step"),
        "every_succeeded": ("every_succeeded: 500", "a step at 500, 1,000, 1,500 devices that succeeded"),
    },
    "bytes": {
        "in_flight": ("in_flight: 50MiB", "of a file of 100 MiB, one download at a time"),
        "per_second": ("per_second: 50MiB", "of a file of 100 MiB, 30 devices a minute"),
    },
    "budget": {
        "name": ("name: one-per-site", "*waiting* names it"),
        "per": ("per: site", "devices without `site` have no limit"),
        "max_in_flight": ("max_in_flight: 2", "two devices of each site at a time"),
    },
    "guardrail": {
        "name": ("name: boot", "its name in events and on the campaign's page"),
        "count": ("count: [reported]", "devices that stay silent do not count as failures"),
        "codes": ("codes: [E_BOOT]", "only devices that report this code count as failures"),
        "threshold": ('threshold: "10%"', "trips at 11 of 100, not at 10"),
        "method": (
            "method: sequential",
            "three failures of three devices do not trip it: it needs five finished devices",
        ),
        "min_finished": ("min_finished: 20", "with fewer than 20 finished devices it does not trip"),
        "alpha": ("alpha: 0.05", "a false alarm in at most 5 % of the campaigns"),
        "scope": ("scope: wave", "the failures of the canaries do not count against the rest"),
        "per": ("per: [hardware_revision]", "revision C is judged without revision B"),
        "action": ("action: quarantine", "revision C waits, and revision B goes on"),
    },
    "retry": {
        "on": ("on: [no_answer, reported]", "also a device that reports a failure gets another attempt"),
        "max_attempts": ("max_attempts: 3", "the first command, and two more"),
        "delay": ("delay: 1m", "about 1 minute, then 2, then 4"),
        "max_delay": ("max_delay: 10m", "no delay is longer than 10 minutes"),
    },
    "deadlines": {
        "answer": ("answer: 10m", "a device that is offline is sent to again after 10 minutes"),
        "progress": ("progress: 30m", "a device that does not report for 30 minutes is sent to again, or fails"),
        "total": ("total: 1d", "a device fails a day after its first command, also if it still reports progress"),
    },
    "schedule": {
        "time_zone": ("time_zone: Europe/Zurich", "`0 2 * * *` means 02:00 in Zurich"),
        "start": ("start: 2027-01-11T08:00:00Z", "the campaign can be started before; it sends from this time on"),
        "end": ("end: 2027-01-31T00:00:00Z", "then the campaign is `ABORTED`, reason `schedule ended`"),
        "at_end": ("at_end: cancel", "devices that have not begun to install stop"),
        "windows": ('windows: [{kind: allow, cron: "0 2 * * *", duration: 2h}]', "from 02:00 to 04:00 on every day"),
        "ignore_freezes": ("ignore_freezes: true", "commands are sent although a freeze is in force"),
    },
    "window": {
        "name": ("name: night", "*waiting* says: window night opens at 02:00 UTC"),
        "kind": ("kind: deny", "nothing is sent in this time, whatever others allow"),
        "cron": ('cron: "0 2 * * 1-5"', "at 02:00 from Monday to Friday"),
        "duration": ("duration: 2h", "from 02:00 to 04:00"),
        "cutoff": ("cutoff: 20m", "the last device begins at 03:40 at the latest"),
        "start": ("start: 2027-12-18T00:00:00Z", "opens once, at this time"),
        "end": ("end: 2028-01-07T00:00:00Z", "closes at this time"),
        "time_zone": ("time_zone: device", "opens at 02:00 by the clock of each device"),
    },
}
"""By the name of the table and the key: the key with a value, and what that does."""
