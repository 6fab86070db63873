"""Checks and completes the URL of the API."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from rollwave.errors import ConfigurationError


def base_url(text: str) -> str:
    """The URL of the API without a slash at its end. ``host:port`` is plain HTTP.

    Raises:
        ConfigurationError: the URL cannot be used. The message does not contain it.
    """
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError
    except ValueError as error:
        raise _unusable("it is not a URL") from error
    if parts.scheme not in {"http", "https"}:
        raise _unusable("it does not begin with http:// or https://")
    if "@" in parts.netloc:
        raise _unusable("it contains a user name and password, but the API needs a key")
    if not parts.hostname or re.search(r"\s", url):
        raise _unusable("it is not a URL")
    if parts.query or parts.fragment:
        raise _unusable("it has a query or fragment after the path")
    return url


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the API's URL cannot be used: {why}",
        hint="Correct ROLLWAVE_API_URL or --api-url; write it like http://127.0.0.1:8080.",
    )
