# make materialize   set everything up and run the whole graph on the sample
# make test          set everything up and run the tests
# make commands      the tests that run the commands of the README as they are shown
# make check         linter, types, definitions
# make postgres      the tests that need a PostgreSQL server, which it installs
# make s3            the tests that need a server of S3, which it installs
# make faults        disturb runs at every file operation (EVERY=10: at every tenth)
# make deploy-files  parse the files of deploy/ by their own tools, which it installs
# make audit         look for known vulnerabilities in what constraints.txt pins
# make dev           web UI and daemon on http://127.0.0.1:3000

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home
# Not HOST: many shells export that, and the UI has no login.
export RECSYS_UI_HOST ?= 127.0.0.1
export RECSYS_UI_PORT ?= 3000
# Dagster says at each start that its own commands have successors; the project uses both.
QUIET := PYTHONWARNINGS='ignore:Function,ignore:Parameter'
# Makes a file once, whoever else asks for it at the same time: two pips in one environment break it, and so do two
# processes that initialise one Dagster home.
ALONE = $(PYTHON) scripts/alone.py

.PHONY: materialize test commands check postgres s3 faults deploy-files audit dev sample clean

# CONFIG names a file of run configuration.
materialize: $(VENV)/.installed $(DAGSTER_HOME)/.initialised
	$(QUIET) $(BIN)/dagster asset materialize --select '*' -m recsys_pipeline.definitions \
		$(if $(CONFIG),-c $(CONFIG)) -c examples/console.yaml
	@echo
	@$(BIN)/python -m recsys_pipeline

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m "not commands and not s3 and not postgres and not deploy_files"

commands: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m commands

s3: $(VENV)/.installed-s3
	$(BIN)/pytest -m s3 recsys_pipeline_tests/s3

check: $(VENV)/.installed-dev $(DAGSTER_HOME)/.initialised
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg check defs

postgres: $(VENV)/.installed-postgres
	$(BIN)/pytest -m postgres

deploy-files: $(VENV)/.installed-deploy-files
	$(BIN)/pytest -m deploy_files

audit: $(VENV)/.installed-audit
	$(BIN)/python scripts/audit.py $(BIN)/pip-audit

EVERY ?= 1
faults: $(VENV)/.installed-dev
	@command -v cc > /dev/null || $(BIN)/pip install --quiet -c constraints.txt ziglang
	$(BIN)/python -m recsys_pipeline_tests.faults --every $(EVERY)

dev: $(VENV)/.installed $(DAGSTER_HOME)/.initialised
	@exec env $(QUIET) $(BIN)/python scripts/whole.py $(BIN)/dagster dev -w workspace.yaml --host $(RECSYS_UI_HOST) --port $(RECSYS_UI_PORT)

sample:
	$(PYTHON) data/make_sample.py

clean:
	rm -rf $(VENV) .dagster_home data/warehouse

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.x")'
	$(ALONE) $(VENV) $@ -- $(PYTHON) -m venv $(VENV)

INSTALL = $(ALONE) $(VENV) $@ $^ -- $(BIN)/pip install --quiet -c constraints.txt -e

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) '.[ui]'

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) '.[dev]'

$(VENV)/.installed-s3: $(VENV)/.installed-dev
	$(INSTALL) '.[s3-server]'

$(VENV)/.installed-postgres: $(VENV)/.installed-dev
	$(INSTALL) '.[postgres-server]'

$(VENV)/.installed-deploy-files: $(VENV)/.installed-dev
	$(INSTALL) '.[deploy-files]'

$(VENV)/.installed-audit: $(VENV)/.installed
	$(INSTALL) '.[audit]'

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	$(ALONE) $(DAGSTER_HOME) $@ $^ -- cp dagster.yaml $@

$(DAGSTER_HOME)/.initialised: $(DAGSTER_HOME)/dagster.yaml | $(VENV)/.installed
	@$(QUIET) $(ALONE) $(DAGSTER_HOME) $@ $^ -- $(BIN)/dagster instance migrate > /dev/null
