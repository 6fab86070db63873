"""The error message for an artifact's URL names the mistake in that URL."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rollwave.api.fields import ArtifactUrl

urls: TypeAdapter[str] = TypeAdapter(ArtifactUrl)


def refusal(url: str) -> str | None:
    """The reason why ``url`` is refused. None: it is accepted."""
    try:
        urls.validate_python(url)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/my file.bin", "Should have the blank at character 13 written as %20"),
        ("https://h/für.bin", 'Should have "ü" at character 12 written as %C3%BC'),
        ("https://h?v=\u65e5", 'Should have "\u65e5" at character 13 written as %E6%97%A5'),
        ("https://h/{id}", 'Should have "{" at character 11 written as %7B'),
        ("https://h/a\\b", 'Should have "\\" at character 12 written as %5C'),
        ("https://h/a\u00a0b", "Should have U+00A0 at character 12 written as %C2%A0"),
        ("https://h/a\nb", "Should not contain U+000A, at character 12"),
        ("https://h/a\n", "Should not contain U+000A, at character 12"),
        (" https://h/a", "Should have no blank at either end"),
        ("https://h/a ", "Should have no blank at either end"),
        ("https://me:hunter2@h/a", "Should not contain a user name and password"),
        ("https://me:hunter2@h/a b", "Should not contain a user name and password"),
        ("https://bücher.example:8443/a", "Should name the host as xn--bcher-kva.example"),
        ("https://straße.example/a", "Should name the host in ASCII, as xn--…"),
        ("https://\u65e5\u672c.example/a b", "Should name the host as xn--wgv71a.example"),
        ("https://my host/a", "Should name a host, of A-Z a-z 0-9 . _ -"),
        ("https:///a", "Should name a host, of A-Z a-z 0-9 . _ -"),
        ("https://", "Should name a host, of A-Z a-z 0-9 . _ -"),
        ("https://-h/a", "Should name a host, of A-Z a-z 0-9 . _ -"),
        ("https://h:port/a", "Should have a port of 1 to 5 digits"),
        ("https://h:/a", "Should have a port of 1 to 5 digits"),
        ("https://[::1/a", "Should close the bracket around the IPv6 address of the host"),
        ("https://[fe80::1%25eth0]/a", "Should name a host, of A-Z a-z 0-9 . _ -"),
        ("ftp://h/a", "Should begin with http:// or https://"),
        ("file:///etc/passwd", "Should begin with http:// or https://"),
        ("javascript:alert(1)", "Should begin with http:// or https://"),
        ("h/a", "Should begin with http:// or https://"),
        ("", "Should begin with http:// or https://"),
    ],
)
def test_each_mistake_in_a_url_is_named(url: str, expected: str) -> None:
    assert refusal(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://h/my%20file.bin",
        "https://h/f%C3%BCr",
        "https://xn--bcher-kva.example:8443/a",
        "HTTP://[::1]:80/a?b=c#d",
    ],
)
def test_a_corrected_url_is_accepted(url: str) -> None:
    assert refusal(url) is None


@given(st.text(max_size=12))
def test_following_the_hints_leads_to_a_valid_url(path: str) -> None:
    url = f"https://h/{path}x"
    for _ in range(len(path) + 1):
        expected = refusal(url)
        if expected is None or expected.startswith("Should not contain"):
            return
        found = re.search(r"at character ([0-9]+) written as ((?:%[0-9A-F]{2})+)$", expected)
        assert found, expected
        at = int(found[1]) - 1
        url = url[:at] + found[2] + url[at + 1 :]
    assert refusal(url) is None


@given(st.text(max_size=30))
def test_any_text_is_accepted_or_refused_with_a_reason(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/a"):
        expected = refusal(url)
        assert expected is None or expected.startswith("Should ")
