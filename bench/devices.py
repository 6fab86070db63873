"""The devices, all of a fleet in this process, so that their cost can be told from the engine's. See `bench.fleet`.

``python -m bench.devices listen PORT STATUS…`` answers each command with these statuses. It prints ``ready``, and for
each line on its standard input what it has heard so far.
``python -m bench.devices report`` reads what to report from standard input, and prints when each report was sent.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import Counter
from typing import Any

from bench import wire
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic

BINS = 100
"""Slices of a second in which commands are counted."""


class Heard:
    """Counts commands by campaign, and by the hundredth of a second in which they came."""

    def __init__(self) -> None:
        self._bins: dict[bytes, Counter[int]] = {}
        self._spans: dict[bytes, list[float]] = {}

    def count(self, bodies: list[bytes], now: float) -> None:
        for body, number in Counter(bodies).items():
            self._bins.setdefault(body, Counter())[int(now * BINS)] += number
            self._spans.setdefault(body, [now, now])[1] = now

    def told(self) -> str:
        campaigns = [
            {
                "campaign": json.loads(body)["campaign_id"],
                "number": bins.total(),
                "first": self._spans[body][0],
                "last": self._spans[body][1],
                "bins": sorted(bins.items()),
            }
            for body, bins in self._bins.items()
        ]
        return json.dumps({"cpu": time.process_time(), "heard": campaigns})


class Answers:
    """A socket of its own for what devices say; they fall silent while the broker owes them too many PUBACKs."""

    def __init__(self, line: socket.socket, statuses: list[str]) -> None:
        self.line = line
        self._statuses = statuses
        self._payloads: dict[bytes, list[bytes]] = {}
        self._cutter = wire.Frames()
        self._said = self._acknowledged = 0

    @property
    def waiting(self) -> bool:
        return self._said - self._acknowledged >= wire.WINDOW

    def say(self, commands: list[tuple[str, bytes]]) -> None:
        frames = []
        for topic, body in commands:
            for payload in self._payloads_for(body):
                frames.append(wire.publish_frame(self._said, f"{topic}/status", payload))
                self._said += 1
        self.line.sendall(b"".join(frames))

    def read(self) -> None:
        frames = self._cutter.feed(self.line.recv(1 << 18))
        self._acknowledged += sum(kind & 0xF0 == wire.PUBACK for kind, _ in frames)

    def _payloads_for(self, body: bytes) -> list[bytes]:
        if body not in self._payloads:
            campaign = json.loads(body)["campaign_id"]
            self._payloads[body] = [encode_report(campaign, status) for status in self._statuses]
        return self._payloads[body]


def listen(port: int, statuses: list[str]) -> None:
    heard, cutter = Heard(), wire.Frames()
    name = f"bench-devices-{os.getpid()}"
    with wire.connected(port, name) as line, wire.connected(port, f"{name}-say") as speaking:
        answers = Answers(speaking, statuses)
        line.sendall(wire.subscribe_frame("tenant/+/device/+/ota"))
        assert line.recv(4096)[:1] == b"\x90"
        print("ready", flush=True)
        while True:
            hearing = [] if answers.waiting else [line]
            readable: list[Any] = select.select([*hearing, answers.line, sys.stdin], [], [])[0]
            if sys.stdin in readable:
                if not sys.stdin.readline():
                    return
                print(heard.told(), flush=True)
            if answers.line in readable:
                answers.read()
            if line in readable:
                data, now = line.recv(1 << 18), time.time()
                came = [wire.topic_of(body) for kind, body in cutter.feed(data) if kind & 0xF0 == wire.PUBLISH]
                line.sendall(b"".join(wire.puback_frame(identifier) for _, identifier, _ in came))
                commands = [(topic, bytes(body)) for topic, _, body in came]
                heard.count([body for _, body in commands], now)
                if statuses:
                    answers.say(commands)


def report() -> None:
    order = json.load(sys.stdin)
    payloads: dict[tuple[object, ...], bytes] = {}
    frames = []
    for number, (tenant, device, *words) in enumerate(order["reports"]):
        said = tuple(words)
        if said not in payloads:
            payloads[said] = encode_report(*said)
        frames.append(wire.publish_frame(number, status_topic(tenant, device), payloads[said]))
    with wire.connected(order["port"], f"bench-reports-{os.getpid()}") as line:
        before = time.process_time()
        handed = wire.flood(line, frames, per_second=order["per_second"])
    print(json.dumps({"cpu": time.process_time() - before, "handed": handed}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["listen", port, *statuses]:
            listen(int(port), statuses)
        case ["report"]:
            report()
