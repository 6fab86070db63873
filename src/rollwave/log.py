"""Structured logging through the standard ``logging``, so that a host's handlers receive Rollwave's records."""

from __future__ import annotations

import logging
import secrets
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog

from rollwave.client.text import visible
from rollwave.errors import RollwaveError

if TYPE_CHECKING:
    from rollwave.settings import Settings

ROOT = "rollwave"

TraceSource: TypeAlias = ContextVar[Any] | Callable[[], object]
"""The source of a host's trace id: its context variable, or a function that returns the id."""

_LATER = frozenset({"message", "asctime"})
"""Attributes that a record gets when it is formatted. ``logging`` refuses fields with these names too."""

_source: ContextVar[TraceSource | None] = ContextVar("rollwave_trace_source", default=None)


def _rename_reserved(
    logger: logging.Logger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Rename fields whose names are attributes of the record, such as ``name`` and ``module``: append ``_``.

    ``logging`` refuses such fields, which a host may have bound. The host's record factory decides which attributes a
    record has, and may decide so for each record.
    """
    level = logging.getLevelNamesMapping().get(method.upper(), logging.ERROR)
    record = logging.getLogRecordFactory()(logger.name, level, "", 0, event.get("event"), (), None)
    for name in (vars(record).keys() | _LATER) & event.keys() - {"exc_info", "stack_info"}:
        event[f"{name}_"] = event.pop(name)
    return event


class _Logger(structlog.stdlib.BoundLogger):
    """If a host's record factory, filter or handler raises, the traceback goes to stderr, and the caller continues."""

    def _proxy_to_logger(self, method_name: str, event: str | None = None, *event_args: str, **event_kw: Any) -> None:
        try:
            super()._proxy_to_logger(method_name, event, *event_args, **event_kw)
        except Exception:  # noqa: BLE001  a log line must not stop the work
            if logging.raiseExceptions and sys.stderr:
                with suppress(OSError, ValueError):  # stderr may be closed
                    traceback.print_exc()


def _without_repeated_error(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Remove an exception without a traceback: it only repeats ``error`` and ``hint``."""
    match event.get("exc_info"):
        case (_, _, None):
            del event["exc_info"]
    return event


_render: list[structlog.typing.Processor] = [
    structlog.stdlib.ExtraAdder(),
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    _without_repeated_error,
    structlog.processors.format_exc_info,
]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose records have the event's name as their message and its fields as attributes.

    ``_`` is appended to a field name that is an attribute of the record (``name``, ``module``, …). The logger never
    raises.
    """
    logger: _Logger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _rename_reserved,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=_Logger,
    )
    return logger


def _for_a_terminal(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape control characters in values, which may come from devices. The lines of a traceback are kept."""
    for key, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(map(visible, lines))
    return event


def configure(settings: Settings) -> None:
    """Configure logging for commands: one JSON object per line on stderr, or readable lines on a terminal."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [
            _for_a_terminal,
            structlog.dev.ConsoleRenderer(timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback),
        ]
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
        report(get_logger("settings"), "ota_setting_ignored", fault, level=logging.WARNING)


def report(
    log: structlog.stdlib.BoundLogger, event: str, error: Exception, *, level: int = logging.ERROR, **fields: Any
) -> None:
    """Log an error.

    For an error of Rollwave, the record has the fields ``error`` and ``hint``. It also has them as an exception
    without a traceback, for handlers that print no fields. For any other error, it has the traceback.
    """
    if isinstance(error, RollwaveError):
        shown = type(error)(str(error), hint=error.hint)
        log.log(level, event, error=str(error), hint=error.hint, exc_info=(type(shown), shown, None), **fields)
    else:
        log.log(level, event, error=f"{type(error).__name__}: {error}", exc_info=error, **fields)


@contextmanager
def traced_by(source: TraceSource | None) -> Iterator[None]:
    """Take trace ids from ``source`` inside the block. None: no change."""
    token = _source.set(source if source is not None else _source.get())
    try:
        yield
    finally:
        _source.reset(token)


@contextmanager
def trace(prefix: str) -> Iterator[str]:
    """Add one ``trace_id`` to all events inside the block. There is one per tick and one per batch of reports.

    The id is the host's if :func:`traced_by` has set a source. If the host's context variable is empty, it is set to
    the new id inside the block, so that the host's own lines have the same id.
    """
    source = _source.get()
    given = _given_by(source)
    trace_id = given or f"{prefix}-{secrets.token_hex(6)}"
    token = source.set(trace_id) if isinstance(source, ContextVar) and not given else None
    try:
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            yield trace_id
    finally:
        if token is not None:
            token.var.reset(token)


def _given_by(source: TraceSource | None) -> str:
    """The host's trace id. Empty: there is none now."""
    try:
        found = source.get(None) if isinstance(source, ContextVar) else source and source()
    except Exception as error:  # noqa: BLE001  a host's function must not stop a tick
        get_logger("log").debug("ota_no_trace_id", error=f"{type(error).__name__}: {error}")
        return ""
    return str(found) if found else ""
