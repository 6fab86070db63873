"""The API's address as people write it; what cannot be one is refused before anything is sent, and not quoted."""

from __future__ import annotations

import pytest

from rollwave.client.address import base_url
from rollwave.client.api import Api
from rollwave.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("http://h:8080", "http://h:8080"),
        ("https://h/", "https://h"),
        ("https://h/behind/a/proxy/", "https://h/behind/a/proxy"),
        ("h:8080", "http://h:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("HTTP://h", "HTTP://h"),
    ],
)
def test_valid_api_urls_are_accepted(written: str, used: str) -> None:
    assert base_url(written) == used


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@h",
        "me:hunter2@h:80",
        "ftp://hunter2",
        "http://h:hunter2",
        "http://hun ter2",
        "http://",
        "h/a?k=hunter2",
    ],
)
def test_an_invalid_api_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Api(url, "key")
    message = f"{refused.value} {refused.value.hint}"
    assert "ROLLWAVE_API_URL" in message
    assert "hunter2" not in message
    assert "hun ter2" not in message


def test_a_key_that_cannot_be_sent_is_not_quoted() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Api("http://h", "hunter2\u00fc")
    assert "ROLLWAVE_API_KEY" in f"{refused.value} {refused.value.hint}"
    assert "\u00fc" not in f"{refused.value}"
    assert "xfc" not in f"{refused.value}"
