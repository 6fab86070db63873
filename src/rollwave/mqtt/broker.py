"""The address, login and TLS settings of the broker."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from rollwave.errors import ConfigurationError
from rollwave.settings import Settings

Protocol: TypeAlias = Literal["5", "3.1.1"]

_PLAINTEXT_PORT, _TLS_PORT = 1883, 8883
_SCHEMES = {"mqtt": False, "tcp": False, "mqtts": True, "ssl": True, "tls": True}
"""Schemes of a broker's URL, and whether each means TLS. Other MQTT clients write ``tcp``, ``ssl`` and ``tls``."""

_HOST = re.compile(r"[^\s,/@\x00]+")

_MAX_TEXT_BYTES = 65_535
"""Maximum size of a text in an MQTT packet."""


@dataclass(frozen=True, slots=True)
class Broker:
    """The address, login and TLS settings of the broker."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: Protocol = "5"
    keepalive: int = 30
    """MQTT keep-alive in seconds. The connection is dropped after 1.5 times this without traffic."""
    unused_ca: bool = False
    """``MQTT_CA_CERT`` is set, but the URL asks for plaintext."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Broker:
        """Read the MQTT settings.

        Raises:
            ConfigurationError: the URL or a file cannot be used.
        """
        return cls.from_url(
            settings.mqtt_broker_url,
            username=settings.mqtt_username,
            password=settings.mqtt_password.get_secret_value() if settings.mqtt_password else None,
            ca_cert=settings.mqtt_ca_cert,
            client_cert=settings.mqtt_client_cert,
            client_key=settings.mqtt_client_key,
            protocol=settings.mqtt_protocol,
            keepalive=settings.mqtt_keepalive,
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        ca_cert: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        protocol: Protocol = "5",
        keepalive: int = 30,
    ) -> Broker:
        """Parse ``mqtt://host:port`` or ``mqtts://host:port`` (TLS, with a verified certificate).

        ``tcp`` means ``mqtt``; ``ssl`` and ``tls`` mean ``mqtts``. Without a scheme, port 8883 means TLS. A login in
        the URL is used if none is given separately.

        A URL that asks for plaintext gets plaintext, and ``ca_cert`` is then not used (:attr:`warning`).

        Raises:
            ConfigurationError: the URL, the login or a file cannot be used. Plaintext, or a login without the
                certificate, is never tried instead.
        """
        encrypted, host, port, user, secret = _split(url)
        username, password = username or user, password or secret
        _check_login(username, password, protocol)
        files = {"MQTT_CLIENT_CERT": client_cert, "MQTT_CLIENT_KEY": client_key}
        named = [setting for setting, file in files.items() if file]
        if named and not encrypted:
            raise ConfigurationError(
                f"{named[0]} is set but MQTT_BROKER_URL is plaintext",
                hint=f"Use mqtts:// in MQTT_BROKER_URL, or unset {' and '.join(named)}.",
            )
        return cls(
            host=host,
            port=port,
            tls=_tls(ca_cert, client_cert, client_key) if encrypted else None,
            username=username,
            password=password,
            protocol=protocol,
            keepalive=keepalive,
            unused_ca=bool(ca_cert) and not encrypted,
        )

    @property
    def warning(self) -> ConfigurationError | None:
        """A setting that has no effect, with a hint; None: there is none."""
        if not self.unused_ca:
            return None
        return ConfigurationError(
            "MQTT_CA_CERT is not used: MQTT_BROKER_URL is plaintext",
            hint="Use mqtts:// in MQTT_BROKER_URL for TLS, or unset MQTT_CA_CERT.",
        )

    @property
    def address(self) -> str:
        """``host:port``, for messages and logs."""
        return f"{self.host}:{self.port}"


def _split(url: str) -> tuple[bool, str, int, str | None, str | None]:
    """TLS or not, host, port, user name, password."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = parts.port
    except ValueError:  # its message quotes the URL
        parts, port = urlsplit(""), None
    encrypted = _SCHEMES.get(parts.scheme or "mqtt")
    if encrypted is None or not parts.hostname or not _HOST.fullmatch(parts.hostname):
        wrong = f"{parts.scheme}:// is not supported" if parts.scheme in {"ws", "wss"} else "it is not an MQTT URL"
        raise ConfigurationError(
            f"MQTT_BROKER_URL cannot be used: {wrong}", hint="Use mqtt://host:1883, or mqtts://host:8883 for TLS."
        )
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise ConfigurationError(
            "MQTT_BROKER_URL cannot be used: no host can have this name",
            hint="Correct the host name in MQTT_BROKER_URL: parts of 1 to 63 characters, with a dot between them.",
        ) from error
    encrypted = encrypted or (not parts.scheme and port == _TLS_PORT)
    user = unquote(parts.username) if parts.username else None
    secret = unquote(parts.password) if parts.password else None
    return encrypted, parts.hostname, port or (_TLS_PORT if encrypted else _PLAINTEXT_PORT), user, secret


def _check_login(username: str | None, password: str | None, protocol: Protocol) -> None:
    if password and not username and protocol == "3.1.1":
        raise ConfigurationError(
            "MQTT_PASSWORD is set but MQTT_USERNAME is not, which MQTT 3.1.1 does not allow",
            hint="Set MQTT_USERNAME too, or unset MQTT_PASSWORD.",
        )
    for setting, value, forbidden in (("MQTT_USERNAME", username, "\x00"), ("MQTT_PASSWORD", password, None)):
        if value and not _fits(value, forbidden):
            raise ConfigurationError(
                f"{setting} cannot be used: it has a character that MQTT does not allow, or more than "
                f"{_MAX_TEXT_BYTES} bytes",
                hint=f"Correct {setting}, or the login in MQTT_BROKER_URL.",
            )


def _fits(text: str, forbidden: str | None) -> bool:
    try:
        return len(text.encode()) <= _MAX_TEXT_BYTES and (forbidden is None or forbidden not in text)
    except UnicodeEncodeError:
        return False


def _tls(ca_cert: str | None, client_cert: str | None, client_key: str | None) -> ssl.SSLContext:
    _require_file("MQTT_CA_CERT", ca_cert)
    try:
        context = ssl.create_default_context(cafile=ca_cert or None)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"MQTT_CA_CERT {ca_cert} cannot be used: {error}", hint="Name a PEM file with CA certificates."
        ) from error
    if client_cert or client_key:
        _show_certificate(context, client_cert, client_key)
    return context


def _show_certificate(context: ssl.SSLContext, client_cert: str | None, client_key: str | None) -> None:
    if not (client_cert and client_key):
        has, lacks = ("MQTT_CLIENT_CERT", "MQTT_CLIENT_KEY")[:: 1 if client_cert else -1]
        raise ConfigurationError(
            f"{has} is set but {lacks} is not", hint="Set both to log in with a client certificate, or neither."
        )
    _require_file("MQTT_CLIENT_CERT", client_cert)
    _require_file("MQTT_CLIENT_KEY", client_key)
    try:
        # No passphrase: without one OpenSSL would ask for it on the terminal.
        context.load_cert_chain(client_cert, client_key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"MQTT_CLIENT_CERT {client_cert} with MQTT_CLIENT_KEY {client_key} cannot be used: {error}",
            hint="Name PEM files with a certificate and with the key that it was made for, without a passphrase.",
        ) from error


def _require_file(setting: str, name: str | None) -> None:
    if name and not Path(name).is_file():
        raise ConfigurationError(
            f"{setting} names {name}, which is no file",
            hint="Name a PEM file that this process can read.",
        )
