"""Contexts of an operator, and which server a command calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwave.client.contexts import FILE, Context, Contexts
from rollwave.client.target import Given, choose
from rollwave.errors import ConfigurationError, Conflict, InvalidInput, NotFound

KEY = "rollwave.north.0123456789abcdef.secret"
PROD = Context("prod", "https://ota.example", KEY)
NOTHING = Given()
LAB = Context("lab", "http://lab:8080", "rollwave.lab.fedcba9876543210.other")
BOTH = Contexts(Path("file")).add(PROD, use=False, replace=False).add(LAB, use=False, replace=False)
DEFAULT = "http://127.0.0.1:8080"


def test_contexts_are_kept_in_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "rollwave"
    Contexts.read(folder).add(PROD, use=False, replace=False).add(LAB, use=False, replace=False).write()
    found = Contexts.read(folder)
    assert (dict(found.by_name), found.current) == ({"prod": PROD, "lab": LAB}, "prod")
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert not found.readable_by_others
    (folder / FILE).chmod(0o640)
    assert Contexts.read(folder).readable_by_others
    found.use("lab").write()
    assert (Contexts.read(folder).current, (folder / FILE).stat().st_mode & 0o777) == ("lab", 0o600)
    assert [each.name for each in folder.iterdir()] == [FILE]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"contexts": {"a": {"url": 1}}}', '{"contexts": 5}'])
def test_a_damaged_file_is_named_and_not_quoted(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content + KEY if content == "{" else content)
    with pytest.raises(ConfigurationError, match=FILE) as raised:
        Contexts.read(tmp_path)
    assert "secret" not in f"{raised.value}{raised.value.hint}"


def test_contexts_are_added_used_and_removed() -> None:
    assert BOTH.current == "prod", "the first one becomes the current one"
    with pytest.raises(Conflict):
        BOTH.add(PROD, use=False, replace=False)
    other = Context("prod", "https://new.example", KEY)
    assert BOTH.add(other, use=False, replace=True).by_name["prod"] == other
    assert BOTH.remove("lab").current == "prod"
    assert BOTH.remove("prod").current is None
    for action in (BOTH.use, BOTH.remove, BOTH.get):
        with pytest.raises(NotFound, match="no context test"):
            action("test")


def test_a_key_is_never_part_of_what_is_printed() -> None:
    assert "secret" not in f"{PROD} {PROD!r} {BOTH}"
    assert (PROD.tenant, PROD.key_id) == ("north", "0123456789abcdef")
    assert Context("x", "http://x", "rollwave.a.b%2Fc.0123.secret").tenant == "a.b/c"
    assert Context("x", "http://x", "opaque").key_id == ""


def choice(
    named: str | None = None, options: Given = NOTHING, environment: Given = NOTHING, contexts: Contexts = BOTH
) -> tuple[str, str, bool]:
    found = choose(contexts, named, options, environment, default_url=DEFAULT)
    return found.url, found.key, bool(found.warning)


@pytest.mark.parametrize(
    ("named", "options", "environment", "expected"),
    [
        (None, Given(), Given(), (PROD.url, KEY, False)),
        ("lab", Given(), Given("http://env", "key"), (LAB.url, LAB.key, False)),
        (None, Given(), Given("http://env", "key"), ("http://env", "key", False)),
        (None, Given("http://opt", "key"), Given("http://env", "other"), ("http://opt", "key", False)),
        (None, Given(), Given(None, "key"), (PROD.url, "key", True)),
        (None, Given(), Given(None, KEY), (PROD.url, KEY, False)),
        (None, Given(None, "key"), Given(None, "other"), (PROD.url, "key", False)),
        (None, Given(), Given("https://ota.example/"), (PROD.url, KEY, False)),
    ],
)
def test_options_go_before_a_named_context_and_the_environment_before_the_current_one(
    named: str | None, options: Given, environment: Given, expected: tuple[str, str, bool]
) -> None:
    assert choice(named, options, environment) == expected


def test_the_key_of_a_context_is_not_sent_to_another_url() -> None:
    for elsewhere in (Given("http://env"), Given("https://ota.example.evil")):
        with pytest.raises(ConfigurationError, match="ROLLWAVE_API_KEY is not set"):
            choice(environment=elsewhere)
        with pytest.raises(ConfigurationError, match="ROLLWAVE_API_KEY is not set"):
            choice(options=elsewhere)


def test_without_contexts_the_environment_and_the_default_url_are_used() -> None:
    none = Contexts(Path("file"))
    assert choice(environment=Given(None, "key"), contexts=none) == (DEFAULT, "key", False)
    with pytest.raises(ConfigurationError, match="ROLLWAVE_API_KEY is not set"):
        choice(contexts=none)


def test_a_named_context_excludes_the_options_that_it_replaces() -> None:
    with pytest.raises(InvalidInput, match="--context"):
        choice("lab", Given("http://opt"))
    with pytest.raises(NotFound, match="no context test"):
        choice("test")
