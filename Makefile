# The newest interpreter that is not older than 3.11, unless PYTHON= names one.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LOWEST := .venv-lowest

LOCK   := $(BIN)/uv pip compile pyproject.toml --quiet --python-version 3.11 --generate-hashes --no-header

# Tests mostly wait for what they started: more of them at a time than there are cores.
JOBS   ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup demo test lowest check chaos thousands fuzz bench docs vendored fmt lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## build .venv with everything in it, `rollwave` too

demo: setup ## see it work: database, broker, engine and a fleet, all on this machine
	$(BIN)/rollwave demo

test: setup ## every test, on real servers (ARGS="tests/unit -k pacing" for some)
	@scripts/system-packages
	$(BIN)/pytest --numprocesses=$(JOBS) --dist=worksteal $(ARGS)

lowest: setup $(LOWEST)/.ready ## unit and integration tests on PostgreSQL 18 with the lowest versions that may be installed (Python 3.11 or 3.12)
	@scripts/system-packages
	$(BIN)/python -m build --wheel --no-isolation --outdir $(LOWEST)/dist . >/dev/null
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $(LOWEST)/dist/*.whl
	$(LOWEST)/bin/pytest --numprocesses=$(JOBS) --dist=worksteal -k 'not debian and not deploy' \
	  -W ignore::pytest.PytestUnraisableExceptionWarning $(or $(ARGS),tests/unit tests/integration)

check: setup ## lint, format, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src tests bench
	$(BIN)/lint-imports

chaos: setup ## random faults under the auditor (SECONDS=60, or SCHEDULES=1000; SEED=n plays one again)
	@scripts/system-packages
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED),$(if $(SCHEDULES),--schedules $(SCHEDULES),--seconds $(or $(SECONDS),60))) $(ARGS)

thousands: setup ## 20,000 awkward devices, workers killed every few seconds (DEVICES=20000)
	@scripts/system-packages
	$(BIN)/python -m tests.chaos.thousands --devices $(or $(DEVICES),20000)

fuzz: setup ## a million mutated reports and topics through the parsers (ARGS="--inputs 1000 --seed 1")
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: setup ## measure everything, in less than ten minutes (ARGS="--help" for parts of it)
	@scripts/system-packages
	$(BIN)/python -m bench $(ARGS)

docs: setup ## write the generated diagrams and tables anew
	$(BIN)/python -m scripts.generate_docs

vendored: setup ## get the files of other projects that the console serves again, with npm, and check their hashes
	$(BIN)/python -m scripts.vendored fetch
	$(BIN)/python -m scripts.vendored check

fmt: setup ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lock: setup ## pin every dependency anew, by hash: newest, for a server alone, and lowest
	$(LOCK) --universal --upgrade --extra dev --output-file requirements.txt
	$(LOCK) --universal --upgrade --extra server --constraint requirements.txt --output-file requirements-server.txt
	$(LOCK) --upgrade --resolution lowest-direct --extra demo --extra test --output-file requirements-lowest.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) $(LOWEST) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Rollwave needs Python 3.11 or newer; '$(PYTHON)' is missing or older. Try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv or ensurepip module. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(LOWEST)/.ready: requirements-lowest.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || { \
	  echo "The lowest versions have no wheels for Python 3.13 and newer. Try: make lowest PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-lowest.txt
	@touch $@
