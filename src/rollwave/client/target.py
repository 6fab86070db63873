"""Which server a command calls, with which key: from its options, the environment, or a context."""

from __future__ import annotations

from dataclasses import dataclass

from rollwave.client.address import base_url
from rollwave.client.contexts import Context, Contexts
from rollwave.errors import ConfigurationError, InvalidInput


@dataclass(frozen=True, slots=True)
class Given:
    """A URL and a key that were given in one place. None: not given there."""

    url: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The server to call. ``warning``: what the operator should know before; empty: nothing."""

    url: str
    key: str
    warning: str = ""


def choose(contexts: Contexts, named: str | None, options: Given, environment: Given, *, default_url: str) -> Target:
    """Choose URL and key: options first, then the context ``named``, the environment, the current context.

    The key of a context is sent to the URL of that context only.

    Raises:
        ConfigurationError: there is no key, or the URL cannot be used.
        InvalidInput: ``named`` is given beside an option that it replaces.
        NotFound: there is no such context.
    """
    if named is not None:
        if options.url or options.key:
            raise InvalidInput(
                "--context names a URL and a key", hint="Leave out --api-url and --api-key, or --context."
            )
        chosen = contexts.get(named)
        return Target(base_url(chosen.url), chosen.key)
    present = contexts.present()
    url = base_url(options.url or environment.url or (present.url if present else default_url))
    of_context = present if present is not None and base_url(present.url) == url else None
    key = options.key or environment.key or (of_context.key if of_context else None)
    if not key:
        raise _no_key(present)
    if of_context is None or options.url or environment.url or options.key or environment.key in {None, of_context.key}:
        return Target(url, key)
    return Target(url, key, _warning(of_context))


def _warning(context: Context) -> str:
    return (
        f"ROLLWAVE_API_KEY is sent to {context.url}, the URL of the current context {context.name}, instead of the "
        "context's own key. Unset it, or set ROLLWAVE_API_URL too."
    )


def _no_key(present: Context | None) -> ConfigurationError:
    if present is not None:
        hint = f"The key of the context {present.name} is sent to {present.url} only."
    else:
        hint = (
            "Set it to a key, or add a context: `rollwave context add`. "
            "`rollwave apikey create --tenant T --role operator` prints a key."
        )
    return ConfigurationError("ROLLWAVE_API_KEY is not set", hint=hint)
