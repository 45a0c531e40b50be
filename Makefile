# make materialize   set everything up and run the whole graph on the sample
# make test          set everything up and run the tests
# make check         linter, types, definitions
# make dev           web UI and daemon on http://127.0.0.1:3000

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home
HOST ?= 127.0.0.1
PORT ?= 3000

.PHONY: materialize test check dev sample clean

materialize: $(VENV)/.installed $(DAGSTER_HOME)/.initialised
	$(BIN)/dagster asset materialize --select '*' -m recsys_pipeline.definitions
	@echo
	@$(BIN)/python -m recsys_pipeline

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal

check: $(VENV)/.installed-dev $(DAGSTER_HOME)/.initialised
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/dg check defs

dev: $(VENV)/.installed $(DAGSTER_HOME)/.initialised
	$(BIN)/dagster dev -w workspace.yaml --host $(HOST) --port $(PORT)

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

# Alone and once: several processes that initialise an empty instance at the same time break it.
$(DAGSTER_HOME)/.initialised: dagster.yaml | $(VENV)/.installed
	mkdir -p $(DAGSTER_HOME)
	cp dagster.yaml $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/dagster instance migrate
	touch $@
