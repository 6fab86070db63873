"""The parts of a firmware's row that go into a command, and mistakes in it that pause the campaign."""

from __future__ import annotations

import base64
import hashlib
from decimal import Decimal

import pytest

from rollwave.domain.firmware import Firmware, read, read_checksum
from rollwave.errors import InvalidInput, UnreadableRow

DIGEST = hashlib.sha256(b"firmware").hexdigest()


def test_a_valid_firmware_row_is_read() -> None:
    assert read("https://h/fw", "2.1.0", DIGEST, 8) == Firmware("https://h/fw", "2.1.0", DIGEST, 8)


@pytest.mark.parametrize(
    "written",
    [
        DIGEST.upper(),
        f"sha256:{DIGEST}",
        f"SHA256:{DIGEST.upper()}",
        f"sha256: {DIGEST}",
        f"  {DIGEST}\r\n",
        f"{DIGEST}\u00a0",
        f"{DIGEST[:32]} {DIGEST[32:]}",
    ],
)
def test_every_common_notation_of_a_sha256_is_read(written: str) -> None:
    assert read_checksum(written) == DIGEST


@pytest.mark.parametrize("none", [None, "", " ", "\n"])
def test_a_firmware_row_without_checksum_is_read(none: str | None) -> None:
    assert read_checksum(none) == ""


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (hashlib.md5(b"firmware").hexdigest(), "an MD5 sum"),
        ("md5:" + hashlib.md5(b"firmware").hexdigest(), "an MD5 sum"),
        (hashlib.sha1(b"firmware").hexdigest(), "a SHA-1 sum"),
        (hashlib.sha512(b"firmware").hexdigest(), "a SHA-512 sum"),
        (base64.b64encode(hashlib.sha256(b"firmware").digest()).decode(), "SHA-256 in base64"),
        ("sha256-" + base64.b64encode(hashlib.sha256(b"firmware").digest()).decode(), "SHA-256 in base64"),
        (DIGEST[:63], "not a SHA-256"),
        (DIGEST + "0", "not a SHA-256"),
        (f"{DIGEST}  fw.bin", "not a SHA-256"),
        ("\uff41" * 64, "not a SHA-256"),
        ("none", "not a SHA-256"),
        (f"sha512:{DIGEST}", "not a SHA-256"),
    ],
)
def test_an_invalid_sha256_is_named(written: str, kind: str) -> None:
    with pytest.raises(InvalidInput, match=f"checksum_sha256 is {kind}"):
        read_checksum(written)


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t", "\u00a0"])
def test_blanks_around_url_and_version_are_stripped(around: str) -> None:
    found = read(f"{around}https://h/fw{around}", f"{around}2.1 beta{around}", None, None)
    assert (found.url, found.version) == ("https://h/fw", "2.1 beta")


@pytest.mark.parametrize("url", ["HTTPS://h/fw", "http://h", "https://[::1]:8443/fw", "https://h/fw 1.bin?sig=a%2Fb"])
def test_urls_that_devices_can_follow_are_accepted(url: str) -> None:
    assert read(url, "1", None, None).url == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (None, "has no file_url"),
        (" \n", "has no file_url"),
        ("https://h/a\nb", "control character"),
        ("https://h/\x7f", "control character"),
        ("https://h/\x85b", "control character"),
        ("ftp://h/fw", "not an http or https URL"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("s3://bucket/fw", "not an http or https URL"),
        ("h/fw.bin", "not an http or https URL"),
        ("https:///fw", "not an http or https URL"),
        ("https:h/fw", "not an http or https URL"),
    ],
)
def test_urls_that_no_device_can_follow_are_refused(url: str | None, why: str) -> None:
    with pytest.raises(UnreadableRow, match=why):
        read(url, "1", None, None)


@pytest.mark.parametrize("size", [None, 0, -1, True, "8", 8.5, Decimal(8)])
def test_an_unknown_size_is_accepted(size: object) -> None:
    assert read("https://h/fw", "1", None, size).size is None
