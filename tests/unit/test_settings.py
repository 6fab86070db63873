"""Environment variables as people and tools write them."""

from __future__ import annotations

import json
import logging

import pytest
from pydantic import ValidationError

from rollwave import log
from rollwave.errors import ConfigurationError
from rollwave.settings import ENGINE, Settings

FIELDS = {field.alias or name: name for name, field in Settings.model_fields.items()}
NUMBERS = sorted(
    variable for variable, name in FIELDS.items() if isinstance(Settings.model_fields[name].default, int | float)
)
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*FIELDS, *FIELDS.values()):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def logging_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    root, ours = logging.getLogger(), logging.getLogger("rollwave")
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(ours, "level", ours.level)


@pytest.mark.parametrize("value", ["", " ", "\t\r\n"])
@pytest.mark.parametrize("variable", FIELDS)
def test_an_empty_variable_counts_as_unset(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = getattr(Settings.load(), FIELDS[variable])
    monkeypatch.setenv(variable, value)
    assert getattr(Settings.load(ENGINE), FIELDS[variable]) == default
    assert Settings.load().faults() == Settings.load().tolerated() == []


def test_an_empty_direct_url_means_no_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("ROLLWAVE_DATABASE_DIRECT_URL", "")
    settings = Settings.load()
    assert (settings.pooled, settings.require_direct_url()) == (False, "postgresql://h/d")


@pytest.mark.parametrize("variable", NUMBERS)
def test_blanks_around_a_number_are_ignored(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings.model_fields[FIELDS[variable]].default
    monkeypatch.setenv(variable, f"  {default}\n")
    assert getattr(Settings.load(), FIELDS[variable]) == default


def test_blanks_around_a_url_are_ignored_and_in_a_password_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", "mqtt://h \n")
    monkeypatch.setenv("MQTT_PASSWORD", " pass word ")
    settings = Settings.load()
    assert settings.mqtt_broker_url == "mqtt://h"
    assert settings.mqtt_password is not None
    assert settings.mqtt_password.get_secret_value() == " pass word "


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *(("info", "INFO"), ("Warning", "WARNING"), ("WARN", "WARNING"), ("warn", "WARNING"), (" debug ", "DEBUG")),
        *(("CRITICAL", "CRITICAL"), ("fatal", "CRITICAL"), ("error", "ERROR"), ("notset", "DEBUG")),
    ],
)
def test_log_levels_are_read_in_any_case(written: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", written)
    assert Settings.load().log_level == read


@pytest.mark.parametrize(
    ("written", "read"), [("JSON", "json"), ("text", "console"), ("Console", "console"), ("AUTO", "auto")]
)
def test_log_formats_are_read_in_any_case(written: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_FORMAT", written)
    assert Settings.load().log_format == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *(("5", "5"), ("5.0", "5"), ("v5", "5"), ("V5.0", "5"), ("mqttv5", "5"), ("MQTT 5", "5")),
        *(("3.1.1", "3.1.1"), ("v3.1.1", "3.1.1"), ("311", "3.1.1"), ("mqttv311", "3.1.1"), ("4", "3.1.1")),
    ],
)
def test_mqtt_protocol_versions_are_read(written: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLWAVE_MQTT_PROTOCOL", written)
    assert Settings.load().mqtt_protocol == read


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTA_TICK_INTERVAL", "soon"),
        ("OTA_TICK_INTERVAL", "-0.25"),
        ("OTA_TICK_INTERVAL", "nan"),
        ("OTA_PROGRESS_TIMEOUT", "inf"),
        ("OTA_MAX_ATTEMPTS", "2.5"),
        ("OTA_MAX_ATTEMPTS", "9" * 5000),
        ("ROLLWAVE_MQTT_PROTOCOL", "3.0"),
        ("ROLLWAVE_MQTT_CLIENT_ID", SECRET * 20),
    ],
)
def test_an_invalid_variable_stops_only_the_code_that_needs_it(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("ROLLWAVE_LEASE", "7")
    settings = Settings.load()
    assert settings.lease == 7
    assert settings.model_copy(update={"lease": 8.0}).lease == 8
    for read in (lambda: getattr(settings, FIELDS[variable]), lambda: Settings.load(ENGINE)):
        with pytest.raises(ConfigurationError, match=rf"^{variable}\b") as raised:
            read()
        assert value not in f"{raised.value} {raised.value.hint}"
        assert variable in raised.value.hint
    assert [variable in str(fault) for fault in settings.faults()] == [True]
    assert value not in repr(settings)


def test_every_invalid_setting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in NUMBERS:
        monkeypatch.setenv(variable, "many")
    assert sorted(str(fault).split()[0] for fault in Settings.load().faults()) == NUMBERS


@pytest.mark.usefixtures("logging_is_put_back")
@pytest.mark.parametrize(
    ("variable", "used"), [("LOG_LEVEL", "INFO"), ("LOG_FORMAT", "auto")], ids=["LOG_LEVEL", "LOG_FORMAT"]
)
def test_an_invalid_log_setting_never_stops_the_program(
    variable: str, used: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, SECRET)
    settings = Settings.load(FIELDS.values())
    assert getattr(settings, FIELDS[variable]) == used
    log.configure(settings)
    log.get_logger("tick").info("ota_tick_start")
    warned, started = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (warned["level"], warned["event"]) == ("warning", "ota_setting_ignored")
    assert variable in warned["error"]
    assert used in warned["hint"]
    assert SECRET not in json.dumps(warned)
    assert started["event"] == "ota_tick_start"


@pytest.mark.parametrize("name", FIELDS.values())
def test_only_the_documented_variables_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs may use `API_KEY`, `LEASE` or `API_URL` in the environment."""
    if name.upper() not in FIELDS:
        monkeypatch.setenv(name.upper(), "77")
        assert getattr(Settings.load(), name) == getattr(Settings(), name) == Settings.model_fields[name].default


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        getattr(Settings(), "no_such_setting")  # noqa: B009  as a program that was not checked does


def test_a_setting_that_does_not_exist_cannot_be_given() -> None:
    with pytest.raises(ValidationError):
        Settings(no_such_setting=5.0)


def test_settings_given_in_a_program_are_read_as_the_environment_is() -> None:
    settings = Settings(OTA_TICK_INTERVAL=2.0, MQTT_CA_CERT="", MQTT_USERNAME=None, lease="7", mqtt_password="word")
    assert (settings.tick_interval, settings.mqtt_ca_cert, settings.mqtt_username) == (2, None, None)
    assert settings.lease == 7
    assert settings.mqtt_password is not None
    assert settings.mqtt_password.get_secret_value() == "word"
    with pytest.raises(ValidationError):
        setattr(settings, "tick_interval", 3.0)  # noqa: B010  as a program that was not checked does


def test_an_invalid_argument_stops_only_the_code_that_needs_it() -> None:
    """The error is logged where the settings are used: a host that creates wrong settings still starts."""
    settings = Settings(tick_interval="soon", log_level="loud")
    assert settings.log_level == "INFO"
    with pytest.raises(ConfigurationError, match="OTA_TICK_INTERVAL"):
        settings.require(ENGINE)


def test_settings_made_in_a_program_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_CA_CERT", "of something else")
    monkeypatch.setenv("OTA_TICK_INTERVAL", "soon")
    settings = Settings(mqtt_broker_url="mqtt://h")
    assert (settings.mqtt_broker_url, settings.mqtt_ca_cert, settings.tick_interval) == ("mqtt://h", None, 10)
    assert settings.faults() == []


def test_variables_are_read_in_any_letter_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("mqtt_broker_url", "mqtt://lower")
    assert Settings.load().mqtt_broker_url == "mqtt://lower"
    monkeypatch.setenv("MQTT_BROKER_URL", "mqtt://upper")
    assert Settings.load().mqtt_broker_url == "mqtt://upper"
