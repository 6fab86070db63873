"""Help texts, exit codes and error messages of the command line. No mistake of a user shows a traceback."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rollwave.cli.main import app
from tests.support import eventually, free_port, program, psql, rollwave, rollwave_running

COMMANDS = (
    ["demo"],
    ["halt"],
    ["search"],
    ["init"],
    *(["context", each] for each in ("add", "use", "list", "show", "remove")),
    *(["freeze", each] for each in ("add", "list", "remove")),
    ["migrate"],
    ["serve"],
    ["worker"],
    ["doctor"],
    ["fleet"],
    *(["device", each] for each in ("run", "list", "show")),
    *(["apikey", each] for each in ("create", "list", "revoke")),
    *(["quarantine", each] for each in ("list", "clear")),
    *(["policy", each] for each in ("check", "schema", "show", "edit", "diff", "list", "store", "delete")),
    *(["firmware", each] for each in ("add", "list")),
    *(["device-group", each] for each in ("import", "put", "list", "show")),
    *(
        ["campaign", each]
        for each in ("create", "list", "show", "start", "pause", "abort", "cancel", "retry", "devices", "watch")
    ),
    *(
        ["campaign", each]
        for each in ("waiting", "explain", "causes", "timeline", "report", "promote", "segments", "release")
    ),
)
"""Every command, as a list of words."""


def test_these_tests_cover_every_command() -> None:
    assert sorted(map(tuple, COMMANDS)) == sorted(_commands(typer.main.get_command(app)))


def _commands(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    """Every command below this one, as its words."""
    if not hasattr(command, "commands"):
        yield words
        return
    for name, each in command.commands.items():
        yield from _commands(each, *words, name)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_refuses_unknown_flags(words: list[str]) -> None:
    explained = CliRunner().invoke(app, [*words, "--help"])
    assert explained.exit_code == 0
    assert f"Usage: rollwave {' '.join(words)}" in explained.stdout
    shown = explained.stdout.partition("Examples")[2]
    assert f"rollwave {' '.join(words)}" in " ".join(shown.split()), "the help has no example"
    mistaken = CliRunner().invoke(app, [*words, "--nope"])
    assert (mistaken.exit_code, mistaken.stdout) == (2, "")


def test_help_is_printed_quickly_and_shows_the_first_commands() -> None:
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = rollwave("--help")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "rollwave campaign watch 1" in done.stdout
    # Measured as CPU time (a third of a second), since the machine may be busy.
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 2.0
    assert rollwave("--version").stdout.startswith("rollwave ")


def test_a_command_of_the_api_reads_neither_the_rules_nor_a_server() -> None:
    heavy = {"pydantic", "lark", "yaml", "cronsim", "fastapi", "asyncpg", "mqttium"}
    script = "import sys, rollwave.cli.main, rollwave.client.view; print(*sys.modules)"
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not heavy & set(read)


@pytest.mark.parametrize("words", [["--nope"], ["nope"], ["campaign", "list", "--nope"]], ids=" ".join)
def test_an_unknown_flag_is_a_usage_error(words: list[str]) -> None:
    done = rollwave(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["migrate"], "DATABASE_URL"),
        (["serve"], "DATABASE_URL"),
        (["worker"], "DATABASE_URL"),
        (["apikey", "create", "--tenant", "north", "--role", "viewer"], "DATABASE_URL"),
        (["campaign", "list"], "ROLLWAVE_API_KEY"),
        (["firmware", "list"], "ROLLWAVE_API_KEY"),
        (["device-group", "list"], "ROLLWAVE_API_KEY"),
    ],
)
def test_a_missing_setting_is_named_in_one_line(words: list[str], setting: str) -> None:
    done = rollwave(*words)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error == f"error: {setting} is not set"
    assert hint.startswith("hint: ")


def test_unavailable_servers_are_named_in_the_error() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    for words, env in (
        (["migrate"], {"DATABASE_URL": f"postgresql://me:secret@{nowhere}/name"}),
        (["campaign", "list"], {"ROLLWAVE_API_URL": f"http://{nowhere}", "ROLLWAVE_API_KEY": "key"}),
        (["campaign", "list"], {"ROLLWAVE_API_URL": "no url", "ROLLWAVE_API_KEY": "key"}),
    ):
        done = rollwave(*words, env=env)
        assert done.returncode == 1
        assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
        assert "secret" not in done.stderr


@pytest.mark.parametrize("value", ["socks://me:secret@127.0.0.1:1080/", "socks5://127.0.0.1:1080", "http://a:b:c"])
@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTP_PROXY"])
def test_an_invalid_proxy_is_named_in_one_line(variable: str, value: str) -> None:
    done = rollwave("campaign", "list", env={"ROLLWAVE_API_KEY": "key", "NO_PROXY": "", variable: value})
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: {variable} ")
    assert variable in hint
    assert "secret" not in done.stderr


def test_an_unreachable_proxy_is_named_with_the_variable_that_sets_it() -> None:
    proxy = f"http://me:secret@127.0.0.1:{free_port()}"
    env = {"ROLLWAVE_API_URL": "http://api.example", "ROLLWAVE_API_KEY": "key", "HTTP_PROXY": proxy, "NO_PROXY": ""}
    done = rollwave("campaign", "list", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(
        "error: the API at http://api.example cannot be reached through the proxy http://127.0.0.1:"
    )
    assert "HTTP_PROXY" in hint
    assert "rollwave serve" not in done.stderr
    assert "secret" not in done.stderr


async def test_migrate_prints_what_it_did(empty_database: str) -> None:
    env = {"DATABASE_URL": empty_database}
    first = rollwave("migrate", env=env).stdout.splitlines()
    assert first[0] == "applied 0001_what_was_here.sql"
    version = first[-1].removeprefix("now at schema ")
    assert rollwave("migrate", env=env).stdout == f"up to date (schema {version})\n"
    psql(empty_database, "UPDATE rollwave_migrations SET version = 9999 WHERE version = 1")
    refused = rollwave("migrate", env=env)
    assert refused.returncode == 1
    assert "the database is at schema 9999" in refused.stderr


async def test_api_keys_are_created_listed_and_revoked(database: str) -> None:
    env = {"DATABASE_URL": database}
    made = rollwave("apikey", "create", "--tenant", "north", "--role", "viewer", "--expires-in", "90d", env=env)
    assert made.stderr == ""
    key = made.stdout.removesuffix("\n")
    assert len(key.split()) == 1
    key_id = key.split(".")[2]
    assert key_id in rollwave("apikey", "list", "--tenant", "north", env=env).stdout
    assert key.split(".")[3] not in rollwave("apikey", "list", "--tenant", "north", "-o", "json", env=env).stdout
    assert rollwave("apikey", "revoke", key_id, "--tenant", "south", env=env).returncode == 1
    assert rollwave("apikey", "revoke", key_id, "--tenant", "north", env=env).returncode == 0
    assert psql(database, "SELECT count(*) FROM rollwave_api_keys WHERE revoked_at IS NOT NULL") == "1"
    assert rollwave("apikey", "create", "--tenant", "no/rth", "--role", "viewer", env=env).returncode == 1


def test_writing_help_to_a_closed_pipe_prints_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([program(), "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""


async def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    # This server accepts connections and never answers, so the command waits for a response.
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        env = {"ROLLWAVE_API_URL": f"http://127.0.0.1:{silent_server.getsockname()[1]}", "ROLLWAVE_API_KEY": "key"}
        async with rollwave_running("campaign", "list", log=tmp_path / "log", env=env) as listing:
            silent_server.settimeout(20)
            connection, _ = silent_server.accept()
            await eventually(lambda: bool(connection.recv(1)))
            listing.process.send_signal(signal.SIGINT)
            assert await listing.process.wait() == 130
            connection.close()
    assert "Traceback" not in listing.output()


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (b"", [], "has 0 bytes, and devices refuse an empty file"),
        (b"firmware", ["--size", "9"], "has 8 bytes, not 9"),
        (b"firmware", ["--checksum", "d41d8cd98f00b204e9800998ecf8427e"], "is an MD5 sum"),
    ],
)
def test_firmware_that_every_device_would_refuse_is_not_registered(
    tmp_path: Path, content: bytes, options: list[str], expected: str
) -> None:
    path = tmp_path / "fw.bin"
    path.write_bytes(content)
    done = rollwave("firmware", "add", str(path), "--url", "https://h/f", "--version", "1", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
