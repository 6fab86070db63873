"""Mutated payloads and topics: parsing never raises, is never slow, and accepted values can be stored.

python -m tests.fuzz --inputs 1000000          a failure prints the seed and the input
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from unicodedata import category

from rollwave.domain.ids import MAX_BIGINT, is_valid_id
from rollwave.domain.reports.parse import MAX_ATTEMPT, MAX_ERROR, Empty, Rejected, Report, parse
from rollwave.mqtt.topics import parse_status_topic

SLOWEST = 0.050
"""Maximum CPU time for one input, in seconds."""


def _body(**changes: object) -> bytes:
    return json.dumps({"campaign_id": 7, "status": "DOWNLOADING"} | changes).encode()


PAYLOADS = [
    _body(progress=75, error="no space", attempt=2),
    _body(status="success", progress=10),
    _body(status="FAILED", error={"code": 7, "why": ["x", None, 1.5]}),
    _body(status="FAILED", error="a\x00b\ud800\U0001f525<script>\x1b[31m"),
    _body(status="FAILED", error="\U0001f525" * 300),
    _body(status="\u017fucce\u017f\u017f"),
    _body(status=["SUCCESS"]),
    _body(status="SKIPPED"),
    _body(progress="75%"),
    _body(progress=" 75 ", attempt="1", code="NO_SPACE", version="2.1.0"),
    _body(status="SUCCESS", attempt=0, code=["x"], version={"a": 1}),
    _body(status="SUCCESS", attempt=1.0),
    _body(progress=74.6),
    _body(progress=1e308),
    _body(progress=None, uptime=5, nested={"a": [1]}),
    _body(campaign_id=True),
    _body(campaign_id=1.9),
    _body(campaign_id=MAX_BIGINT),
    b'{"campaign_id": 7, "campaign_id": 8, "status": "SUCCESS"}',
    b'{"campaign_id": 7, "status": "DOWNLOADING", "progress": NaN}',
    b'{"campaign_id": 7, "status": "DOWNLOADING", "progress": -1e999}',
    b'{"campaign_id": ' + b"9" * 5000 + b', "status": "SUCCESS"}',
    b'{"campaign_id": 7, "status": "FAILED", "error": "' + b"x" * 2000 + b'"}',
    b'{"campaign_id": 7, "status": "SUCC',
    '{"campaign_id": 7, "status": "SUCCESS"}'.encode("utf-16"),
    b'{"campaign_id": 7, "status": "SUCCESS", "error": "\xff"}',
    b"\xef\xbb\xbf" + _body(),
    b"null",
    b"[]",
    b"5",
    b"",
]
LARGE = [
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b'{"campaign_id": 7, "status": "FAILED", "error": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"campaign_id": 7, "status": "FAILED", "error": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    b'{"campaign_id": 7, "status": "FAILED", "error": "' + b"x" * 60_000 + b'"}',
    b'{"campaign_id": 7, "status": "FAILED", "error": "' + b"\\u0000" * 10_000 + b'"}',
    b'{"campaign_id": ' + b"9" * 60_000 + b"}",
    b'{"campaign_id": 7, "status": "DOWNLOADING", "progress": ' + b"9" * 50_000 + b".5e-40000}",
    b"{" + b",".join(b'"k%d": 1' % number for number in range(6000)) + b"}",
    b" " * 65_537,
]
TOPICS = [
    "tenant/north/device/dev-1/ota/status",
    "tenant//device/dev-1/ota/status",
    "tenant/north/device/dev-1/ota/status/more",
    "TENANT/north/device/dev-1/ota/status",
    "tenant/../device/a..b/ota/status",
    "tenant/north/device/a\nb/ota/status",
    "tenant/north/device/\U0001f525/ota/status",
    "tenant/north/device/a%2Fb/ota/status",
    "tenant/Süd 1/device/Pump 7 \U0001f469\u200d\U0001f527/ota/status",
    "tenant/north/device/\ufdd0/ota/status",
    "tenant/north/device/\U0001ffff/ota/status",
    "tenant/$north/device/ a\u2003/ota/status",
    "tenant/north/device/" + "d" * 129 + "/ota/status",
    "tenant/north/device/" + "d" * 128 + "/ota/status",
    "",
]
TOKENS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud83d", b"\\udd25", b"\\u0000", b"\x00", b"\xff"),
    *(b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"-", b".", b"e999", b"1e-999", b"9" * 400, b"-0", b"0x1f"),
    *(
        b'"campaign_id"',
        b'"status"',
        b'"progress"',
        b'"error"',
        b'"attempt"',
        b'"code"',
        b'"version"',
        b'"SUCCESS"',
        b'"FAILED"',
        b"\xed\xa0\x80",
    ),
    *(
        b"\xed\xa0\x80",
        b"\xf0\x9f\x94\xa5",
        b"\xc0\x80",
        b"\xef\xbf\xbf",
        b"[" * 50,
        b"/",
        b"..",
        b"+",
        b"#",
        b"\r\n",
        b" " * 100,
    ),
]


KEYS = ("campaign_id", "status", "progress", "error", "attempt", "code", "version", "more")
VALUES: list[object] = [
    *(
        None,
        True,
        False,
        0,
        -0.0,
        1,
        7,
        -1,
        75,
        74.6,
        101,
        1e308,
        -1e308,
        MAX_BIGINT,
        MAX_BIGINT + 1,
        MAX_ATTEMPT,
        10**30,
    ),
    *(
        "",
        "DOWNLOADING",
        "installing",
        "SUCCESS",
        "Failed",
        "PENDING",
        "7",
        " 1.0 ",
        "1e400",
        "-9e-9",
        "9" * 40,
        "\u0667",
        "75%",
        "no space",
        "\x00",
        "a\x00b",
        "\ud83d",
    ),
    *(
        "\U0001f525" * 257,
        "x" * 1023 + "\u00e9",
        "x" * 1024,
        "\x00" * 2000 + "x",
        "\u2028\x1b[31m",
        "\uffff",
        "</script>",
    ),
    *([], {}, ["x", None], {"why": {"code": [7]}}, [[]] * 50, {"\x00": "\ud800"}),
]


def document(rng: random.Random) -> bytes:
    """A JSON object with the keys of a report, most of them valid."""
    body: dict[str, object] = {
        "campaign_id": 7,
        "status": rng.choice(("DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED")),
    }
    body |= {rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randrange(4))}
    return json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A few edits: of bits, bytes and tokens; parts removed, doubled, or mixed with another input."""
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3, 6))):
        at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        match rng.randrange(7):
            case 0 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 1:
                data = data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
            case 2 | 3:
                data = data[:at] + rng.choice(TOKENS) + data[at:]
            case 4:
                data = data[:at] + data[to:]
            case 5:
                data = data[:to] + data[at:]
            case _:
                data = data[:at] + rng.choice(PAYLOADS)[to:]
    return data


def check_payload(data: bytes) -> str:
    """Parse one payload and return the kind of result. Fails if an accepted value could not be stored."""
    parsed = parse(data)
    if isinstance(parsed, Report):
        assert 0 < parsed.campaign_id <= MAX_BIGINT
        assert parsed.status.value.encode("ascii")
        assert parsed.progress is None or (type(parsed.progress) is int and 0 <= parsed.progress <= 100)
        assert parsed.attempt is None or 0 < parsed.attempt <= MAX_ATTEMPT
        if parsed.error is not None:
            assert parsed.error
            assert "\x00" not in parsed.error
            assert len(parsed.error.encode("utf-8")) <= MAX_ERROR
        return "report"
    assert isinstance(parsed, Rejected | Empty)
    if isinstance(parsed, Rejected):
        assert 0 < len(parsed.reason.encode("utf-8")) <= 200
        return "undecodable" if parsed.undecodable else "rejected"
    return "empty"


def check_topic(topic: str) -> str:
    """Parse one topic. Ids found in it must be valid."""
    source = parse_status_topic(topic)
    if source is None:
        return "no status topic"
    assert all(is_valid_id(each) and each == each.strip() and not set(each) & set("/+#") for each in source)
    assert "Cc" not in {category(char) for each in source for char in each}
    assert topic.encode()
    assert topic == f"tenant/{source[0]}/device/{source[1]}/ota/status"
    return "status topic"


def one(rng: random.Random) -> tuple[bytes, str]:
    """Check one random input. Returns the input and the kind of result."""
    if rng.random() < 0.2:
        data = mutated(rng, rng.choice(TOPICS).encode())
        return data, checked(data, is_topic=True)
    if rng.random() < 0.5:
        data = document(rng)
        data = mutated(rng, data) if rng.random() < 0.2 else data
    else:
        data = mutated(rng, rng.choice(LARGE) if rng.random() < 0.01 else rng.choice(PAYLOADS))
    return data, checked(data, is_topic=False)


def checked(data: bytes, *, is_topic: bool) -> str:
    """Parse a payload or a topic within the time limit. Returns the kind of result."""
    started = time.process_time()
    try:
        became = check_topic(data.decode("utf-8", "replace")) if is_topic else check_payload(data)
    except BaseException:
        print(f"{'topic' if is_topic else 'payload'}: {data[:4096]!r}", file=sys.stderr)
        raise
    took = time.process_time() - started
    assert took < SLOWEST, f"{took * 1000:.0f} ms for {data[:200]!r}… ({len(data)} bytes)"
    return became


def main() -> None:
    """Run the fuzzer and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    rng = random.Random(arguments.seed)
    became: Counter[str] = Counter()
    started = time.monotonic()
    for number in range(1, arguments.inputs + 1):
        became[one(rng)[1]] += 1
        if number % 100_000 == 0 or number == arguments.inputs:
            rate = number / (time.monotonic() - started)
            print(f"{number:>9,} inputs  {rate:,.0f}/s  {dict(became.most_common())}", flush=True)


if __name__ == "__main__":
    main()
