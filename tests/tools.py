"""Programs that check files, run to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


class Tool:
    """A program of this environment or of the system."""

    def __init__(self, name: str) -> None:
        found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert found, f"{name} is not installed: make setup or scripts/system-packages installs it"
        self._path = found

    def run(self, *arguments: str | Path, folder: Path | None = None) -> str:
        """What it prints, on both streams. Fails where it exits with another code than 0."""
        done = self.tried(*arguments, folder=folder)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def tried(self, *arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The same, whatever its exit code."""
        return subprocess.run(
            [self._path, *map(str, arguments)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
