"""Where the broker is and how to speak to it, as the settings say."""

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
"""Whether there is TLS, by scheme. Other MQTT clients write ``tcp``, ``ssl`` and ``tls``."""

_HOST = re.compile(r"[^\s,/@]+")


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how to speak to it."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: Protocol = "5"
    keepalive: int = 30
    """Seconds of silence after which the other side is asked for a sign of life, and gets half as long for it."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Broker:
        """Read the MQTT settings.

        Raises:
            ConfigurationError: the URL or the CA file cannot be used.
        """
        return cls.from_url(
            settings.mqtt_broker_url,
            username=settings.mqtt_username,
            password=settings.mqtt_password.get_secret_value() if settings.mqtt_password else None,
            ca_cert=settings.mqtt_ca_cert,
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
        protocol: Protocol = "5",
        keepalive: int = 30,
    ) -> Broker:
        """Parse ``mqtt://host:port`` or ``mqtts://host:port`` (TLS, verified).

        ``tcp`` is ``mqtt``, ``ssl`` and ``tls`` are ``mqtts``. Without a scheme, port 8883 is TLS and any other is not.

        Raises:
            ConfigurationError: the URL or the CA file cannot be used. Never falls back to plaintext.
        """
        encrypted, host, port, user, secret = _split(url)
        if ca_cert and not encrypted:
            raise ConfigurationError(
                "MQTT_CA_CERT is set but MQTT_BROKER_URL is plaintext",
                hint="Use mqtts:// in MQTT_BROKER_URL, or unset MQTT_CA_CERT.",
            )
        return cls(
            host=host,
            port=port,
            tls=_tls(ca_cert) if encrypted else None,
            username=username or user,
            password=password or secret,
            protocol=protocol,
            keepalive=keepalive,
        )

    @property
    def address(self) -> str:
        """Host and port, for messages and logs."""
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
    encrypted = encrypted or (not parts.scheme and port == _TLS_PORT)
    user = unquote(parts.username) if parts.username else None
    secret = unquote(parts.password) if parts.password else None
    return encrypted, parts.hostname, port or (_TLS_PORT if encrypted else _PLAINTEXT_PORT), user, secret


def _tls(ca_cert: str | None) -> ssl.SSLContext:
    if ca_cert and not Path(ca_cert).is_file():
        raise ConfigurationError(
            f"MQTT_CA_CERT names {ca_cert}, which is no file",
            hint="Name a PEM file that this process can read.",
        )
    try:
        return ssl.create_default_context(cafile=ca_cert or None)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"MQTT_CA_CERT {ca_cert} cannot be used: {error}", hint="Name a PEM file with CA certificates."
        ) from error
