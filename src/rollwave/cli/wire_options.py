"""Options of the commands that run devices."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.domain.ids import ID_RULE, is_valid_id

if TYPE_CHECKING:
    from rollwave.mqtt.broker import Broker
    from rollwave.settings import Settings


def _checked_id(text: str) -> str:
    if not is_valid_id(text):
        raise typer.BadParameter(f"must be {ID_RULE}")
    return text


Tenant = Annotated[str, typer.Option("--tenant", help="Tenant id.", callback=_checked_id)]
Device = Annotated[str, typer.Option("--device", help="Device id.", callback=_checked_id)]
Url = Annotated[
    str,
    typer.Option("--url", help="URL of the broker: mqtt://host:port or mqtts://host:port. Default: MQTT_BROKER_URL."),
]


def broker_at(url: str, settings: Settings) -> Broker:
    """The broker's settings, with ``url`` as its address if one was given. Warnings about the settings are logged.

    Raises:
        ConfigurationError: the URL or a file cannot be used.
    """
    from rollwave import log
    from rollwave.mqtt.broker import Broker

    broker = Broker.from_settings(settings.model_copy(update={"mqtt_broker_url": url} if url else {}))
    if broker.warning:
        log.report(log.get_logger("settings"), "ota_setting_ignored", broker.warning, level=logging.WARNING)
    return broker
