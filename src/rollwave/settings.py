"""The settings, read from the environment here and nowhere else."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rollwave.errors import ConfigurationError


class Settings(BaseSettings):
    """One frozen set of settings. Durations are seconds; fractions are allowed."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    database_url: SecretStr | None = Field(None, alias="DATABASE_URL")
    database_pool_size: int = Field(10, alias="ROLLWAVE_DATABASE_POOL_SIZE", ge=3, le=1000)

    mqtt_broker_url: str = Field("mqtt://localhost:1883", alias="MQTT_BROKER_URL")
    mqtt_username: str | None = Field(None, alias="MQTT_USERNAME")
    mqtt_password: SecretStr | None = Field(None, alias="MQTT_PASSWORD")
    mqtt_ca_cert: str | None = Field(None, alias="MQTT_CA_CERT")
    mqtt_protocol: Literal["5", "3.1.1"] = Field("5", alias="ROLLWAVE_MQTT_PROTOCOL")
    mqtt_client_id: str | None = Field(None, alias="ROLLWAVE_MQTT_CLIENT_ID", max_length=64)
    publish_timeout: float = Field(10.0, alias="ROLLWAVE_PUBLISH_TIMEOUT", gt=0, le=60)

    tick_interval: float = Field(10.0, alias="OTA_TICK_INTERVAL", gt=0, le=86_400)
    progress_timeout: float = Field(1800.0, alias="OTA_PROGRESS_TIMEOUT", gt=0, le=31_536_000)
    max_attempts: int = Field(3, alias="OTA_MAX_ATTEMPTS", ge=1, le=100)
    lease: float = Field(30.0, alias="ROLLWAVE_LEASE", gt=0, le=3600)
    claim_batch: int = Field(1000, alias="ROLLWAVE_CLAIM_BATCH", ge=1, le=10_000)
    report_batch: int = Field(1000, alias="ROLLWAVE_REPORT_BATCH", ge=1, le=10_000)
    report_batch_wait: float = Field(0.03, alias="ROLLWAVE_REPORT_BATCH_WAIT", ge=0, le=5)
    statement_timeout: float = Field(30.0, alias="ROLLWAVE_STATEMENT_TIMEOUT", gt=0, le=600)
    listener_slots: int = Field(1, alias="ROLLWAVE_LISTENER_SLOTS", ge=1, le=64)
    reconcile_interval: float = Field(30.0, alias="ROLLWAVE_RECONCILE_INTERVAL", gt=0, le=60)

    api_url: str = Field("http://127.0.0.1:8080", alias="ROLLWAVE_API_URL")
    api_key: SecretStr | None = Field(None, alias="ROLLWAVE_API_KEY")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", alias="LOG_LEVEL")
    log_format: Literal["auto", "json", "console"] = Field("auto", alias="LOG_FORMAT")

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
