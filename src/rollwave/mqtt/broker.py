"""Where the broker is and how to speak to it, as the settings say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from rollwave.errors import ConfigurationError
from rollwave.settings import Settings

Protocol: TypeAlias = Literal["5", "3.1.1"]

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


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

        Raises:
            ConfigurationError: the URL or the CA file cannot be used. Never falls back to plaintext.
        """
        scheme, host, port, user, secret = _split(url)
        if ca_cert and scheme == "mqtt":
            raise ConfigurationError(
                "MQTT_CA_CERT is set but MQTT_BROKER_URL is plaintext",
                hint="Use mqtts:// in MQTT_BROKER_URL, or unset MQTT_CA_CERT.",
            )
        return cls(
            host=host,
            port=port,
            tls=_tls(ca_cert) if scheme == "mqtts" else None,
            username=username or user,
            password=password or secret,
            protocol=protocol,
            keepalive=keepalive,
        )

    @property
    def address(self) -> str:
        """Host and port, for messages and logs."""
        return f"{self.host}:{self.port}"


def _split(url: str) -> tuple[str, str, int, str | None, str | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        parts, port = urlsplit(""), None
    if port is None or not parts.hostname or parts.scheme not in _DEFAULT_PORTS:
        raise ConfigurationError(
            "MQTT_BROKER_URL is not an MQTT URL", hint="Use mqtt://host:1883, or mqtts://host:8883 for TLS."
        )
    user = unquote(parts.username) if parts.username else None
    secret = unquote(parts.password) if parts.password else None
    return parts.scheme, parts.hostname, port, user, secret


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
