"""The files of other projects that the console serves are unchanged, and listed with their licence."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import vendored


def test_the_files_are_those_of_the_list() -> None:
    assert vendored.faults() == []


def test_a_changed_a_missing_and_an_unlisted_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, missing, *others = vendored.listed()
    for file in (changed, *others):
        (tmp_path / file.target).write_bytes((vendored.FOLDER / file.target).read_bytes())
    with (tmp_path / changed.target).open("a") as content:
        content.write(" ")
    (tmp_path / "more.js").write_text("")
    monkeypatch.setattr(vendored, "FOLDER", tmp_path)
    assert sorted(fault.split()[0] for fault in vendored.faults()) == sorted(
        [changed.target, missing.target, "more.js"]
    )


def test_every_package_has_a_licence_with_its_text_and_names_no_other_server() -> None:
    files = vendored.listed()
    for package in {file.package for file in files}:
        own = [file for file in files if file.package == package]
        assert all(file.licence and file.version for file in own)
        (text,) = (file for file in own if file.target.endswith(".LICENSE"))
        assert "permi" in (vendored.FOLDER / text.target).read_text("utf-8").lower()
    assert "://" not in vendored.LIST.read_text("utf-8")
    assert not [file.target for file in files if b"sourceMappingURL" in (vendored.FOLDER / file.target).read_bytes()]
