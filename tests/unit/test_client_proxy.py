"""The proxy used for the API, chosen by environment variables, and the error for a proxy that cannot be used."""

from __future__ import annotations

import pytest

from rollwave.client.proxy import Proxy
from rollwave.errors import ConfigurationError

API = "http://api.example:8080"


@pytest.mark.parametrize(
    ("environment", "url", "variable"),
    [
        ({}, API, None),
        ({"HTTP_PROXY": ""}, API, None),
        ({"HTTP_PROXY": "http://p:1"}, API, "HTTP_PROXY"),
        ({"HTTP_PROXY": "p:1"}, API, "HTTP_PROXY"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"}, API, "http_proxy"),
        ({"HTTPS_PROXY": "http://p:1"}, API, None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://api.example", "HTTPS_PROXY"),
        ({"ALL_PROXY": "http://p:1"}, API, "ALL_PROXY"),
        ({"ALL_PROXY": "http://p:1", "Http_Proxy": "http://q:1"}, API, "Http_Proxy"),
        # As desktops set it: the proxy for this URL scheme can be used, so the other one does not matter.
        ({"ALL_PROXY": "socks://127.0.0.1:1080/", "http_proxy": "http://127.0.0.1:3128/"}, API, "http_proxy"),
        *(
            ({"ALL_PROXY": "socks://p:1", "NO_PROXY": listed}, API, None)
            for listed in ("*", "api.example", "x, API.example", ".example", "*.example", "example", "api.example:8080")
        ),
        *(
            ({"ALL_PROXY": "http://p:1", "no_proxy": listed}, API, "ALL_PROXY")
            for listed in ("other.example", "pi.example", "api.example:80", "10.0.0.0/8", ",")
        ),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "127.0.0.0/8"}, "http://127.0.0.1:8080", None),
        ({"ALL_PROXY": "http://p:1", "no_proxy": "127.0.0.0/8"}, "http://128.0.0.1:8080", "ALL_PROXY"),
        *(({"ALL_PROXY": "http://p:1", "no_proxy": each}, "http://[::1]:8080", None) for each in ("::1", "[::1]")),
        ({"ALL_PROXY": "socks://p:1"}, "no url", None),
        ({"ALL_PROXY": "socks://p:1"}, "http://[::1", None),
    ],
    ids=str,
)
def test_the_proxy_comes_from_the_variable_for_the_scheme(
    environment: dict[str, str], url: str, variable: str | None
) -> None:
    found = Proxy.leading_to(url, environment)
    assert (found and found.variable) == variable


@pytest.mark.parametrize(
    "value",
    [
        *("socks://me:secret@p:1", "socks5://p:1", "socks5h://p:1", "socks4://p", "ftp://p", "mqtt://p", "://p"),
        *("http://", "http://p:port", "http://p:99999", "http://[::1", "http://me:secret@", "http://:3128"),
    ],
)
@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTP_PROXY"])
def test_an_invalid_proxy_is_named_and_not_quoted(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable} ") as caught:
        Proxy.leading_to(API, {variable: value})
    assert variable in caught.value.hint
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_a_proxy_is_shown_without_its_password() -> None:
    found = Proxy.leading_to(API, {"HTTP_PROXY": "http://me:secret@p.example:3128/x"})
    assert found is not None
    assert (found.address, found.url) == ("http://p.example:3128", "http://me:secret@p.example:3128/x")
