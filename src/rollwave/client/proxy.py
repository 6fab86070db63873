"""The proxy for requests to the API, and the environment variable that names it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

from rollwave.errors import ConfigurationError

_SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Proxy:
    """``url`` may contain a password: show ``address`` instead. ``variable``: the environment variable."""

    url: str
    variable: str

    @property
    def address(self) -> str:
        """The URL without user name and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @classmethod
    def leading_to(cls, url: str, environment: Mapping[str, str]) -> Self | None:
        """The proxy for ``url``, or None. A variable in lower case has precedence, as with curl.

        Raises:
            ConfigurationError: a variable names a proxy that cannot be used.
        """
        try:
            target = urlsplit(url)
            passed_by = target.hostname is None or _passed_by(target, environment)
        except ValueError:
            return None  # the connection will raise an error that says what is wrong with it
        named = {name.lower(): name for name in sorted(environment) if environment[name]}  # lower case sorts last
        if passed_by:
            return None
        for lower in (f"{target.scheme}_proxy", "all_proxy"):
            if lower in named:
                variable = named[lower]
                value = environment[variable].strip()
                return cls(_checked(value if "://" in value else f"http://{value}", variable), variable)
        return None


def _passed_by(target: SplitResult, environment: Mapping[str, str]) -> bool:
    """Whether ``NO_PROXY`` names the host: by its name, a domain above it, its address, a network, or ``*``."""
    host = (target.hostname or "").lower()
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    for entry in (each.strip().lower() for each in listed.split(",") if each.strip()):
        domain = entry.removeprefix("*.").lstrip(".")
        names = {domain, f"[{domain}]", domain.strip("[]")}
        if entry == "*" or host in names or f"{host}:{target.port}" in names or host.endswith(f".{domain}"):
            return True
        if "/" in entry and _within(host, entry):
            return True
    return False


def _within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _checked(url: str, variable: str) -> str:
    """``url``, if it can be used. Errors do not contain it: it may have a password."""
    hint = f"Set {variable} to http://host:port, unset it, or name the API's host in NO_PROXY."
    try:
        parts = urlsplit(url)
        usable = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ConfigurationError(f"{variable} is not a proxy's URL", hint=hint) from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{variable} names a proxy of the kind {parts.scheme}://, which cannot be used here", hint=hint
        )
    if not usable:
        raise ConfigurationError(f"{variable} is not a proxy's URL", hint=hint)
    return url
