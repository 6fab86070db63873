"""Log events, as a host sees them and as our own commands print them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from rollwave import log
from rollwave.errors import SchemaMismatch
from rollwave.settings import Settings


def test_a_host_gets_plain_records(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rollwave"), log.trace("tick") as trace_id:
        log.get_logger("tick").info("ota_tick_start", running_campaigns=3)
    [record] = caplog.records
    assert record.getMessage() == "ota_tick_start"
    assert (vars(record)["running_campaigns"], vars(record)["trace_id"]) == (3, trace_id)


def test_commands_log_one_json_object_per_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, ours = logging.getLogger(), logging.getLogger("rollwave")
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(ours, "level", ours.level)
    log.configure(Settings(LOG_FORMAT="json"))
    try:
        int("two\nlines")
    except ValueError:
        log.get_logger("tick").exception("ota_tick_failed", tenant_id="north")
    [line] = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["tenant_id"]) == ("ota_tick_failed", "error", "north")
    assert event["ts"].endswith("Z")
    assert "two" in event["exception"]


def fails(words: str) -> None:
    raise ValueError(words)


def test_control_characters_from_outside_are_escaped_in_logs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, ours = logging.getLogger(), logging.getLogger("rollwave")
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(ours, "level", ours.level)
    log.configure(Settings(LOG_FORMAT="console"))
    log.get_logger("listener").warning("ota_status_bad_topic", topic="tenant/\x1b[2Jx", device_ids=["a\u202eb"])
    try:
        fails("\x9b31m")
    except ValueError:
        log.get_logger("tick").exception("ota_tick_failed", tenant_id="Pump-7\u200b\u202e日本")
    shown = capsys.readouterr().err
    assert "tenant/\\x1b[2Jx" in shown
    assert "a\\u202eb" in shown
    assert "Pump-7\\u200b\\u202e日本" in shown
    assert "ValueError: \\x9b31m\n" in shown
    assert all(line.isprintable() for line in re.sub(r"\x1b\[[0-9]+m", "", shown).split("\n")), (
        "equal except for its colours"
    )


def test_an_empty_host_trace_id_is_replaced_within_the_block() -> None:
    variable: ContextVar[str] = ContextVar("trace_id", default="")
    with log.traced_by(variable):
        with log.trace("tick") as trace_id:
            assert variable.get() == trace_id
        assert not variable.get()
        variable.set("of the host")
        with log.trace("tick") as trace_id:
            assert trace_id == "of the host"


def test_a_failing_trace_id_function_does_not_stop_logging() -> None:
    def fail() -> str:
        raise LookupError("none")

    with log.traced_by(fail), log.trace("tick") as trace_id:
        assert trace_id.startswith("tick-")


def test_fields_named_like_log_record_attributes_are_renamed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rollwave"):
        log.get_logger("tick").info("ota_tick_start", name="a", message="b", asctime="c")
    [record] = caplog.records
    assert (vars(record)["name_"], vars(record)["message_"], vars(record)["asctime_"]) == ("a", "b", "c")


def test_a_hint_is_in_the_output_of_every_handler(caplog: pytest.LogCaptureFixture) -> None:
    """As a field, or as a note of the exception. Only unexpected errors have a traceback."""
    log.report(log.get_logger("tick"), "ota_tick_failed", SchemaMismatch("no schema", hint="Run it."))
    error = SchemaMismatch("no schema", hint="Run it.")
    log.get_logger("tick").error("ota_campaign_error", exc_info=error)
    for record in caplog.records:
        assert "\nhint: Run it." in logging.Formatter().format(record)
    assert vars(caplog.records[0])["hint"] == "Run it."
    assert "Traceback" not in logging.Formatter().format(caplog.records[0])


@pytest.fixture
def factory() -> Iterator[Callable[[Callable[..., logging.LogRecord]], None]]:
    """Set the host's record factory."""
    before = logging.getLogRecordFactory()
    yield logging.setLogRecordFactory
    logging.setLogRecordFactory(before)


def test_a_hosts_record_factory_may_set_any_attribute(
    caplog: pytest.LogCaptureFixture, factory: Callable[[Callable[..., logging.LogRecord]], None]
) -> None:
    plain = logging.getLogRecordFactory()

    def of_the_host(*given: Any, **named: Any) -> logging.LogRecord:
        record = plain(*given, **named)
        if record.name.startswith("rollwave."):
            vars(record).update(error=None, hint="of the host", trace_id="t-1")
        return record

    factory(of_the_host)
    with log.trace("tick") as trace_id:
        log.report(log.get_logger("host"), "ota_not_ready", SchemaMismatch("no schema", hint="Run it."))
    [record] = caplog.records
    assert (vars(record)["hint"], vars(record)["trace_id"]) == ("of the host", "t-1")
    ours = {name: vars(record)[f"{name}_"] for name in ("error", "hint", "trace_id")}
    assert ours == {"error": "no schema", "hint": "Run it.", "trace_id": trace_id}


@pytest.mark.parametrize("part", ["factory", "filter", "handler"])
def test_logging_that_fails_raises_nothing(
    part: str,
    capsys: pytest.CaptureFixture[str],
    factory: Callable[[Callable[..., logging.LogRecord]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError("of the host")

    ours = logging.getLogger("rollwave.host")
    handler = logging.NullHandler()
    monkeypatch.setattr(ours, "handlers", [handler])
    match part:
        case "factory":
            factory(fail)
        case "filter":
            monkeypatch.setattr(ours, "filters", [fail])
        case _:
            monkeypatch.setattr(handler, "handle", fail)
    log.report(log.get_logger("host"), "ota_not_ready", SchemaMismatch("no schema", hint="Run it."))
    assert "LookupError: of the host" in capsys.readouterr().err
