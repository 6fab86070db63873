"""Connects a command to the API: to the server in its options, in the environment, or of a context."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from rollwave.cli.complete import campaign_ids, context_names
from rollwave.cli.output import complain

if TYPE_CHECKING:
    from rollwave.client.api import Api
    from rollwave.client.target import Target

CampaignArgument = Annotated[
    int, typer.Argument(metavar="ID", min=1, help="The campaign's id.", autocompletion=campaign_ids)
]

_PANEL = "Connection"
_OPTIONS: dict[str, Any] = {
    "context": Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="A context of `rollwave context list`. Default: the environment, then the current context.",
            rich_help_panel=_PANEL,
            autocompletion=context_names,
        ),
    ],
    "api_url": Annotated[
        str | None,
        typer.Option(
            "--api-url",
            metavar="URL",
            help="Default: ROLLWAVE_API_URL, the current context, or http://127.0.0.1:8080.",
            rich_help_panel=_PANEL,
        ),
    ],
    "api_key": Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="Default: ROLLWAVE_API_KEY, which other users of this machine cannot see.",
            rich_help_panel=_PANEL,
        ),
    ],
}
"""The options that every command of the API has."""


class _Options(NamedTuple):
    context: str | None = None
    api_url: str | None = None
    api_key: str | None = None


_given: ContextVar[_Options] = ContextVar("given")


def over_api(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the connection, which :func:`connect` uses while the command runs."""
    own = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in _OPTIONS.items()
    ]

    @wraps(command)
    def connected(**arguments: Any) -> None:
        options = _Options(**{name: arguments.pop(name) for name in _OPTIONS})
        token = _given.set(options)
        try:
            command(**arguments)
        finally:
            _given.reset(token)

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.parameters.values()]
    connected.__dict__["__signature__"] = own.replace(parameters=[*parameters, *more])
    connected.__annotations__ = {each.name: each.annotation for each in (*parameters, *more)}
    return connected


def connect() -> Api:
    """A client of the API. A warning about the choice of the server is printed on standard error.

    Raises:
        ConfigurationError: there is no key, or the proxy that the environment names cannot be used.
        InvalidInput: options contradict each other.
        NotFound: there is no context of the given name.
    """
    target = chosen_target(*_given.get(_Options()))
    if target.warning:
        complain(f"warning: {target.warning}")
    return client_of(target)


def chosen_target(context: str | None, api_url: str | None, api_key: str | None) -> Target:
    """The server that options, environment and contexts name."""
    from rollwave.client.contexts import Contexts
    from rollwave.client.target import Given, choose
    from rollwave.settings import Settings, config_folder

    settings = Settings.load()
    exported = Given(
        settings.api_url if "api_url" in settings.model_fields_set else None,
        settings.api_key.get_secret_value() if settings.api_key else None,
    )
    options = Given((api_url or "").strip() or None, (api_key or "").strip() or None)
    return choose(
        Contexts.read(config_folder()), context, options, exported, default_url=Settings.model_fields["api_url"].default
    )


def client_of(target: Target, *, timeout: float = 30.0) -> Api:
    """A client for this server. ``timeout``: seconds for one request."""
    from rollwave.client.api import Api
    from rollwave.client.proxy import Proxy
    from rollwave.settings import proxy_variables

    return Api(target.url, target.key, timeout=timeout, proxy=Proxy.leading_to(target.url, proxy_variables()))
