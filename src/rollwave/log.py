"""Structured events over the standard ``logging``: a host's handlers see them like any other record."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from rollwave.client.text import visible

if TYPE_CHECKING:
    from rollwave.settings import Settings

ROOT = "rollwave"

_render: list[structlog.typing.Processor] = [
    structlog.stdlib.ExtraAdder(),
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    structlog.processors.format_exc_info,
]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose records have the event as their message and its fields as attributes.

    A field may not be called like an attribute of ``logging.LogRecord`` (``name``, ``module``, …).
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def _for_a_terminal(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What devices and others wrote cannot drive the terminal. Lines of a traceback stay lines."""
    for key, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(map(visible, lines))
    return event


def configure(settings: Settings) -> None:
    """For our own commands: one JSON object a line on stderr, or readable lines on a terminal."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [_for_a_terminal, structlog.dev.ConsoleRenderer(timestamp_key="ts")]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_render,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(settings.log_level)
    for fault in settings.tolerated():
        get_logger("settings").warning("ota_setting_ignored", error=str(fault), hint=fault.hint)


@contextmanager
def trace(prefix: str) -> Iterator[str]:
    """Give every event inside the block one ``trace_id`` (one per tick, one per ingested batch)."""
    trace_id = f"{prefix}-{secrets.token_hex(6)}"
    with structlog.contextvars.bound_contextvars(trace_id=trace_id):
        yield trace_id
