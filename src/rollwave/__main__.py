"""`python -m rollwave` is `rollwave`."""

from rollwave.cli.main import run

run()
