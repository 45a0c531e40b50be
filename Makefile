# make materialize   set everything up and run the whole graph on the sample
# make test          set everything up and run the tests
# make commands      the tests that run the commands of the README as they are shown
# make check         linter, types, definitions
# make forgetting    the test that looks for a forgotten user in every file of a warehouse
# make postgres      the tests that need a PostgreSQL server, which it installs
# make s3            the tests that need a server of S3, which it installs
# make faults        disturb runs at every file operation (EVERY=10: at every tenth)
# make dev           web UI and daemon on http://127.0.0.1:3000

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home
# Not HOST: many shells export that, and the UI has no login.
RECSYS_UI_HOST ?= 127.0.0.1
RECSYS_UI_PORT ?= 3000
# Dagster says at each start that its own commands have successors; the project uses both.
QUIET := PYTHONWARNINGS='ignore:Function,ignore:Parameter'

.PHONY: materialize test commands check forgetting postgres s3 faults dev sample clean

# CONFIG names a file of run configuration.
materialize: $(VENV)/.installed $(DAGSTER_HOME)/dagster.yaml
	$(QUIET) $(BIN)/dagster asset materialize --select '*' -m recsys_pipeline.definitions \
		$(if $(CONFIG),-c $(CONFIG)) -c examples/console.yaml
	@echo
	@$(BIN)/python -m recsys_pipeline

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m "not commands and not s3 and not postgres and not forgetting"

commands: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m commands

s3: $(VENV)/.installed-s3
	$(BIN)/pytest -m s3 recsys_pipeline_tests/s3

check: $(VENV)/.installed-dev $(DAGSTER_HOME)/.initialised
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg check defs

forgetting: $(VENV)/.installed-dev
	$(BIN)/pytest -m forgetting

postgres: $(VENV)/.installed-postgres
	$(BIN)/pytest -m postgres

EVERY ?= 1
faults: $(VENV)/.installed-dev
	@command -v cc > /dev/null || $(BIN)/pip install --quiet -c constraints.txt ziglang
	$(BIN)/python -m recsys_pipeline_tests.faults --every $(EVERY)

dev: $(VENV)/.installed $(DAGSTER_HOME)/.initialised
	$(QUIET) $(BIN)/dagster dev -w workspace.yaml --host $(RECSYS_UI_HOST) --port $(RECSYS_UI_PORT)

sample:
	$(PYTHON) data/make_sample.py

clean:
	rm -rf $(VENV) .dagster_home data/warehouse

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[ui]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.installed-s3: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[s3-server]'
	touch $@

$(VENV)/.installed-postgres: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[postgres-server]'
	touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	mkdir -p $(DAGSTER_HOME)
	cp dagster.yaml $@

# Alone and once: several processes that initialise an empty instance at the same time break it. A run of the command line
# is one process, and does it in a quarter of the time.
$(DAGSTER_HOME)/.initialised: $(DAGSTER_HOME)/dagster.yaml | $(VENV)/.installed
	$(BIN)/dagster instance migrate > /dev/null
	touch $@
