# Everything here needs only Python 3.11+, make, and a package registry; the virtual environment is made on demand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-mutations test-pgbouncer test-installs check check-hard check-http check-letta bench constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "openproto needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable '.[all]'
	@touch $@

demo: $(READY)  ## store, search, and build a context: on sqlite, then on a real PostgreSQL
	@$(BIN)/openproto demo --provider sqlite
	@$(BIN)/openproto demo --provider postgres

test: $(READY)  ## run the tests on real files and a real PostgreSQL, in WORKERS=2 processes
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder --max-worker-restart 0 --openproto-quick -m "not pgbouncer and not installs and not full"

test-full: $(READY)  ## the same with every conformance case on every provider
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder --max-worker-restart 0 -m "not pgbouncer and not installs"

test-mutations: $(READY)  ## make 109 faults, one after another, each of which the tests must notice; takes two hours
	@$(BIN)/python -m mutations

test-pgbouncer: $(READY)  ## run the tests that want PgBouncer, which the system must have (Debian: pgbouncer)
	@$(BIN)/python -m pytest -m "pgbouncer and not full"

test-installs: $(READY)  ## install each vendor's extra by itself, and all of them together
	@$(BIN)/python -m pytest -m installs

check: $(READY)  ## ruff, mypy --strict, and pyright over everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

check-http: $(READY)  ## ten thousand invented requests against the server's own OpenAPI
	@$(BIN)/python tests/server/schemathesis_run.py

check-hard: $(READY)  ## kills, network faults, storms, probes, and a soak of half an hour; writes docs/reliability.md
	@$(BIN)/python tests/hard --write

check-letta: $(READY)  ## install, start, and certify a real Letta server, in an environment of its own
	@$(BIN)/python tests/vendors/letta/real_server.py

bench: $(READY)  ## measure the figures side by side; writes .bench/figures.json and prints the table
	@$(BIN)/python -m benchmarks

constraints:  ## rewrite constraints.txt from the newest releases that work together
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --group dev --editable '.[all]'
	$(BIN)/python -m pip freeze --all --exclude-editable > constraints.txt
	@touch $(READY)

clean:  ## remove the virtual environment and what the tools left behind
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache
