"""The settings. This is the only module that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr

from rollwave.environment import Environment
from rollwave.errors import ConfigurationError

_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL", "NOTSET": "DEBUG"}
_FORMATS = {"text": "console"}
_PROTOCOLS = {"5.0": "5", "311": "3.1.1", "4": "3.1.1"}  # on the wire, 3.1.1 has the number 4


def _log_level(value: object) -> str:
    level = str(value).upper()
    return _LEVELS.get(level, level)


def _log_format(value: object) -> str:
    word = str(value).lower()
    return _FORMATS.get(word, word)


def _mqtt_protocol(value: object) -> str:
    number = str(value).lower().removeprefix("mqtt").strip().removeprefix("v")
    return _PROTOCOLS.get(number, number)


class Settings(Environment):
    """Immutable settings. Times are in seconds; fractions are allowed.

    ``Settings.load()`` reads the environment. ``Settings(mqtt_broker_url="mqtts://…", tick_interval=5)`` does not:
    settings that are not passed have their defaults.
    """

    tolerated_fields = frozenset({"log_level", "log_format"})  # invalid log settings must not stop the program
    kept_blanks = frozenset({"MQTT_USERNAME", "MQTT_PASSWORD"})

    database_url: SecretStr | None = Field(
        None,
        alias="DATABASE_URL",
        description="PostgreSQL URL for Rollwave's own commands. A host passes its pool instead.",
    )
    database_direct_url: SecretStr | None = Field(
        None,
        alias="ROLLWAVE_DATABASE_DIRECT_URL",
        description="PostgreSQL URL that bypasses PgBouncer, where `DATABASE_URL` or a host's pool goes through one.",
    )
    database_pool_size: int = Field(
        10,
        alias="ROLLWAVE_DATABASE_POOL_SIZE",
        ge=3,
        le=1000,
        description="Maximum pool size per process, plus one connection per listener slot and one for LISTEN.",
    )

    mqtt_broker_url: str = Field(
        "mqtt://localhost:1883",
        alias="MQTT_BROKER_URL",
        description="URL of the broker: `mqtt://host:1883`, or `mqtts://host:8883` for verified TLS.",
    )
    mqtt_username: str | None = Field(None, alias="MQTT_USERNAME", description="User name at the broker.")
    mqtt_password: SecretStr | None = Field(None, alias="MQTT_PASSWORD", description="Password at the broker.")
    mqtt_ca_cert: str | None = Field(
        None,
        alias="MQTT_CA_CERT",
        description="PEM file with the CA certificates to trust. Over TLS, a missing file is an error.",
    )
    mqtt_client_cert: str | None = Field(
        None,
        alias="MQTT_CLIENT_CERT",
        description="PEM file with the client certificate and its chain. Read when a process starts.",
    )
    mqtt_client_key: str | None = Field(
        None,
        alias="MQTT_CLIENT_KEY",
        description="PEM file with the private key of the client certificate, without a passphrase.",
    )
    mqtt_protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(_mqtt_protocol)] = Field(
        "5",
        alias="ROLLWAVE_MQTT_PROTOCOL",
        description="MQTT version: `5` or `3.1.1`.",
    )
    mqtt_client_id: str | None = Field(
        None,
        alias="ROLLWAVE_MQTT_CLIENT_ID",
        max_length=64,
        description="Prefix of the listener's client ids. Default: derived from the installation's id.",
    )
    mqtt_keepalive: int = Field(
        15,
        alias="ROLLWAVE_MQTT_KEEPALIVE",
        ge=1,
        le=3600,
        description="MQTT keep-alive. The connection is dropped after 1.5 times this without traffic.",
    )
    publish_timeout: float = Field(
        10.0,
        alias="ROLLWAVE_PUBLISH_TIMEOUT",
        gt=0,
        le=60,
        description="Maximum time for the broker to acknowledge half a batch of commands.",
    )

    tick_interval: float = Field(
        10.0,
        alias="OTA_TICK_INTERVAL",
        gt=0,
        le=86_400,
        description="Length of a tick. A campaign's `rollout_rate` is the number of devices per tick.",
    )
    progress_timeout: float = Field(
        1800.0,
        alias="OTA_PROGRESS_TIMEOUT",
        gt=0,
        le=31_536_000,
        description="Maximum silence of a device in progress. A campaign may set its own.",
    )
    device_timeout: float = Field(
        86_400.0,
        alias="ROLLWAVE_DEVICE_TIMEOUT",
        gt=0,
        le=31_536_000,
        description="Maximum time for a device, from its first command on. A campaign may set its own.",
    )
    max_attempts: int = Field(
        3,
        alias="OTA_MAX_ATTEMPTS",
        ge=1,
        le=100,
        description="Maximum number of attempts per device. A campaign may set its own.",
    )
    lease: float = Field(
        30.0,
        alias="ROLLWAVE_LEASE",
        gt=0,
        le=3600,
        description="Maximum time to send commands to claimed devices. After it, another worker may claim them.",
    )
    claim_batch: int = Field(
        1000,
        alias="ROLLWAVE_CLAIM_BATCH",
        ge=1,
        le=10_000,
        description="Maximum number of devices per claim.",
    )
    report_batch: int = Field(
        1000,
        alias="ROLLWAVE_REPORT_BATCH",
        ge=1,
        le=10_000,
        description="Maximum number of reports per commit.",
    )
    report_batch_wait: float = Field(
        0.03,
        alias="ROLLWAVE_REPORT_BATCH_WAIT",
        ge=0,
        le=5,
        description="Maximum time that a report waits for others to be committed with it.",
    )
    answer_rate: int = Field(
        500,
        alias="ROLLWAVE_ANSWER_RATE",
        ge=10,
        le=100_000,
        description="Maximum number of answers per second to devices that ask for their command.",
    )
    listener_slots: int = Field(
        1,
        alias="ROLLWAVE_LISTENER_SLOTS",
        ge=1,
        le=64,
        description="Number of listener slots, which share the reports. All workers must have the same value.",
    )
    reconcile_interval: float = Field(
        45.0,
        alias="ROLLWAVE_RECONCILE_INTERVAL",
        gt=0,
        le=60,
        description="Time between two comparisons of the counters with the rows.",
    )

    api_url: str = Field(
        "http://127.0.0.1:8080", alias="ROLLWAVE_API_URL", description="URL of the API, for operators' commands."
    )
    api_key: SecretStr | None = Field(None, alias="ROLLWAVE_API_KEY", description="API key, for operators' commands.")

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_log_level)] = Field(
        "INFO", alias="LOG_LEVEL", description="`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, in any letter case."
    )
    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(_log_format)] = Field(
        "auto",
        alias="LOG_FORMAT",
        description="`json`, `console` (or `text`), or `auto`: console on a terminal, else JSON.",
    )

    def __init__(self, **given: Any) -> None:
        """``given``: settings by field name or variable name. All others have their defaults.

        Raises:
            pydantic.ValidationError: there is no setting of one of these names.
        """
        super().__init__(**given)

    @classmethod
    def load(cls, needed: Iterable[str] = ()) -> Self:
        """Read the environment. Every setting has a default.

        Args:
            needed: names of fields whose values are checked now.

        Raises:
            ConfigurationError: one of ``needed`` is invalid.
        """
        settings = cls.read(os.environ)
        settings.require(needed)
        return settings

    @classmethod
    def exported(cls) -> dict[str, str]:
        """The variables of the environment that are settings and are not empty, by their names."""
        names = {str(field.alias) for field in cls.model_fields.values()}
        return {name: os.environ[name] for name in sorted(names & os.environ.keys()) if os.environ[name].strip()}

    @property
    def pooled(self) -> bool:
        """Whether ``DATABASE_URL`` goes through a pooler, which may use another session for each transaction."""
        return self.database_direct_url is not None

    def require_direct_url(self) -> str:
        """The PostgreSQL URL for connections that need a session of their own.

        Raises:
            ConfigurationError: ``DATABASE_URL`` is not set.
        """
        return self.database_direct_url.get_secret_value() if self.database_direct_url else self.require_database_url()

    def require_database_url(self) -> str:
        """The PostgreSQL URL.

        Raises:
            ConfigurationError: ``DATABASE_URL`` is not set.
        """
        if self.database_url is None or not self.database_url.get_secret_value():
            raise ConfigurationError(
                "DATABASE_URL is not set",
                hint="Set it to your PostgreSQL, as in DATABASE_URL=postgresql://user@host:5432/name",
            )
        return self.database_url.get_secret_value()


ENGINE = frozenset(Settings.model_fields) - Settings.tolerated_fields - {"api_url", "api_key"}
"""The settings that a worker needs, embedded or not."""


def proxy_variables() -> Mapping[str, str]:
    """Proxy variables such as ``HTTP_PROXY`` and ``no_proxy``, by name, with the letter case of the environment."""
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def editor_command() -> str:
    """The command of the person's editor: ``VISUAL``, else ``EDITOR``, else ``vi``."""
    return os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"


def config_folder() -> Path:
    """The folder of the operator's own files: ``rollwave`` in ``XDG_CONFIG_HOME``, else in ``~/.config``."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification has relative paths ignored.
    base = Path(given) if given.startswith("/") else Path(os.environ.get("HOME") or "/") / ".config"
    return base / "rollwave"
