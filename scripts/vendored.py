"""Fetch and check the files of other projects that the console serves: src/rollwave/console/vendored.toml lists them.

python -m scripts.vendored check   exit 1 if a file is missing, differs from its hash, or is not in the list
python -m scripts.vendored fetch   get the packages with `npm pack` and write the files whose hash is right

For a new version: change the version in vendored.toml, run fetch, and copy the hashes that it prints after reading the
release notes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONSOLE = Path(__file__).parents[1] / "src" / "rollwave" / "console"
LIST = CONSOLE / "vendored.toml"
FOLDER = CONSOLE / "static" / "vendor"


@dataclass(frozen=True, slots=True)
class Vendored:
    """One file: ``source`` is its path inside the npm package, ``target`` its name in static/vendor."""

    package: str
    version: str
    licence: str
    source: str
    target: str
    sha256: str


def listed() -> list[Vendored]:
    """The files of vendored.toml."""
    packages = tomllib.loads(LIST.read_text("utf-8"))["package"]
    return [
        Vendored(each["name"], each["version"], each["licence"], **file) for each in packages for file in each["file"]
    ]


def faults() -> list[str]:
    """What is wrong with the files in static/vendor. Empty: they are those of vendored.toml."""
    files = listed()
    found = []
    for file in files:
        path = FOLDER / file.target
        if not path.exists():
            found.append(f"{file.target} is missing: run `python -m scripts.vendored fetch`")
        elif (digest := _sha256(path.read_bytes())) != file.sha256:
            found.append(f"{file.target} has the hash {digest}, and vendored.toml says {file.sha256}")
    here = {path.name for path in FOLDER.iterdir()} if FOLDER.exists() else set()
    return found + [f"{name} is not in vendored.toml" for name in sorted(here - {file.target for file in files})]


def fetch() -> list[str]:
    """Write the files. Returns what is wrong; a file with another hash than the listed one is not written."""
    found = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, content in _fetched(listed()):
        if (digest := _sha256(content)) == file.sha256:
            (FOLDER / file.target).write_bytes(content)
        else:
            found.append(f"{file.target} of {file.package} {file.version} has the hash {digest}")
    return found


def _fetched(files: list[Vendored]) -> Iterator[tuple[Vendored, bytes]]:
    for name, version in dict.fromkeys((file.package, file.version) for file in files):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
            (archive,) = Path(folder).iterdir()
            with tarfile.open(archive) as inside:
                for file in files:
                    if file.package == name:
                        member = inside.extractfile(f"package/{file.source}")
                        assert member, file.source
                        yield file, member.read()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(arguments: list[str]) -> int:
    """Run the command. Returns the exit code."""
    if arguments not in (["check"], ["fetch"]):
        print(__doc__, file=sys.stderr)
        return 2
    found = fetch() if arguments == ["fetch"] else faults()
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
