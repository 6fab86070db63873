"""Programs that check files."""

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
        """Run the program and return both output streams. Fails if its exit code is not 0."""
        done = self.tried(*arguments, folder=folder)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def tried(self, *arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the program, whatever its exit code. Returns both output streams."""
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
