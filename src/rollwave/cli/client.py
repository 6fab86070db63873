"""Connects a command to the API, at the address in its options or in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.errors import ConfigurationError

if TYPE_CHECKING:
    from rollwave.client.api import Api

CampaignArgument = Annotated[int, typer.Argument(metavar="ID", min=1, help="The campaign's id.")]
ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api-url", help="Default: ROLLWAVE_API_URL, or http://127.0.0.1:8080.", rich_help_panel="Connection"
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="Default: ROLLWAVE_API_KEY, which other users of this machine cannot see.",
        rich_help_panel="Connection",
    ),
]


def connect(api_url: str | None, api_key: str | None) -> Api:
    """A client of the API.

    Raises:
        ConfigurationError: there is no key, or the proxy that the environment names cannot be used.
    """
    from rollwave.client.address import base_url
    from rollwave.client.api import Api
    from rollwave.client.proxy import Proxy
    from rollwave.settings import Settings, proxy_variables

    settings = Settings.load()
    key = (api_key or "").strip() or (settings.api_key.get_secret_value() if settings.api_key else "")
    if not key:
        raise ConfigurationError(
            "ROLLWAVE_API_KEY is not set",
            hint="Set it to a key; `rollwave apikey create --tenant T --role operator` prints one.",
        )
    url = base_url((api_url or "").strip() or settings.api_url)
    return Api(url, key, proxy=Proxy.leading_to(url, proxy_variables()))
