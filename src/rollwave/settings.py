"""The settings, read from the environment here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rollwave.errors import ConfigurationError


class Settings(BaseSettings):
    """One frozen set of settings. Durations are seconds; fractions are allowed."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    database_url: SecretStr | None = Field(
        None,
        alias="DATABASE_URL",
        description="PostgreSQL URL for standalone commands; a host hands over its pool instead.",
    )
    database_direct_url: SecretStr | None = Field(
        None,
        alias="ROLLWAVE_DATABASE_DIRECT_URL",
        description="The same database, past the PgBouncer that `DATABASE_URL` or a host's pool leads through.",
    )
    database_pool_size: int = Field(
        10,
        alias="ROLLWAVE_DATABASE_POOL_SIZE",
        ge=3,
        le=1000,
        description="Connections of one process, at most, beside one for each listener slot and one for calls.",
    )

    mqtt_broker_url: str = Field(
        "mqtt://localhost:1883",
        alias="MQTT_BROKER_URL",
        description="`mqtt://host:1883`, or `mqtts://host:8883` for TLS, verified.",
    )
    mqtt_username: str | None = Field(None, alias="MQTT_USERNAME", description="Login at the broker.")
    mqtt_password: SecretStr | None = Field(None, alias="MQTT_PASSWORD", description="Its password.")
    mqtt_ca_cert: str | None = Field(
        None,
        alias="MQTT_CA_CERT",
        description="PEM file with the CA to trust. Named and missing is an error, never plaintext.",
    )
    mqtt_protocol: Literal["5", "3.1.1"] = Field(
        "5", alias="ROLLWAVE_MQTT_PROTOCOL", description="`5`, or `3.1.1` for brokers that speak no other."
    )
    mqtt_client_id: str | None = Field(
        None,
        alias="ROLLWAVE_MQTT_CLIENT_ID",
        max_length=64,
        description="Prefix of the listener's client ids; by default one made from this database's own id.",
    )
    mqtt_keepalive: int = Field(
        15,
        alias="ROLLWAVE_MQTT_KEEPALIVE",
        ge=1,
        le=3600,
        description="A broker that is silent for one and a half times as long is taken for gone.",
    )
    publish_timeout: float = Field(
        10.0,
        alias="ROLLWAVE_PUBLISH_TIMEOUT",
        gt=0,
        le=60,
        description="How long the broker may take to acknowledge half a batch of commands.",
    )

    tick_interval: float = Field(
        10.0,
        alias="OTA_TICK_INTERVAL",
        gt=0,
        le=86_400,
        description="A tick. A campaign's `rollout_rate` is devices per tick.",
    )
    progress_timeout: float = Field(
        1800.0,
        alias="OTA_PROGRESS_TIMEOUT",
        gt=0,
        le=31_536_000,
        description="How long a device in progress may stay silent; a campaign may set its own.",
    )
    device_timeout: float = Field(
        86_400.0,
        alias="ROLLWAVE_DEVICE_TIMEOUT",
        gt=0,
        le=31_536_000,
        description="How long a device has in all, from the first acknowledged command; a campaign may set its own.",
    )
    max_attempts: int = Field(
        3,
        alias="OTA_MAX_ATTEMPTS",
        ge=1,
        le=100,
        description="How often a silent device is sent the command in all; a campaign may set its own.",
    )
    lease: float = Field(
        30.0,
        alias="ROLLWAVE_LEASE",
        gt=0,
        le=3600,
        description="How long a worker may take to send what it has claimed, before another may.",
    )
    claim_batch: int = Field(
        1000, alias="ROLLWAVE_CLAIM_BATCH", ge=1, le=10_000, description="Devices claimed at once, at most."
    )
    report_batch: int = Field(
        1000, alias="ROLLWAVE_REPORT_BATCH", ge=1, le=10_000, description="Reports committed together, at most."
    )
    report_batch_wait: float = Field(
        0.03,
        alias="ROLLWAVE_REPORT_BATCH_WAIT",
        ge=0,
        le=5,
        description="How long a report waits for others to be committed with.",
    )
    answer_rate: int = Field(
        500,
        alias="ROLLWAVE_ANSWER_RATE",
        ge=10,
        le=100_000,
        description="Answers a second to devices that ask what they should be doing.",
    )
    listener_slots: int = Field(
        1,
        alias="ROLLWAVE_LISTENER_SLOTS",
        ge=1,
        le=64,
        description="Listener slots of the installation, the same for every worker; several share the load.",
    )
    reconcile_interval: float = Field(
        45.0,
        alias="ROLLWAVE_RECONCILE_INTERVAL",
        gt=0,
        le=60,
        description="How often counters are compared with the rows.",
    )

    api_url: str = Field(
        "http://127.0.0.1:8080", alias="ROLLWAVE_API_URL", description="Where operators' commands find the API."
    )
    api_key: SecretStr | None = Field(None, alias="ROLLWAVE_API_KEY", description="The key they use.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="LOG_LEVEL", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", alias="LOG_FORMAT", description="`json`, `console`, or `auto`: console on a terminal, else JSON."
    )

    @classmethod
    def load(cls) -> Settings:
        """Read the environment.

        Raises:
            ConfigurationError: a variable cannot be read; the message names it, never its value.
        """
        try:
            return cls()  # every field has a default: what is missing is the reader's to ask for
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(
                f"{name}: {first['msg']}", hint=f"Correct {name} in the environment, or unset it."
            ) from None

    @property
    def pooled(self) -> bool:
        """Whether ``DATABASE_URL`` leads through a pooler, which may give each transaction another session."""
        return self.database_direct_url is not None

    def require_direct_url(self) -> str:
        """The PostgreSQL URL for what needs a session of its own.

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


def proxy_variables() -> Mapping[str, str]:
    """Variables that name proxies: ``HTTP_PROXY``, ``no_proxy`` and their like, by their names as they are written."""
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
