# make materialize   set everything up and run the whole graph on the sample
# make test          set everything up and run the tests
# make runs          the tests that run the graph, or start workers, once more
# make set-up        install what any of the others needs
# make commands      the tests that run the commands of the README as they are shown
# make nights        whole nights with new data, none, bad data and a half-written file; some by the real daemon
# make check         linter, types, definitions
# make forgetting    the test that looks for a forgotten user in every file of a warehouse
# make postgres      the tests that need a PostgreSQL server, which it installs
# make s3            the tests that need a server of S3, which it installs
# make mlflow        the tests that need an MLflow server, which it installs beside the rest
# make spark          the tests that need a cluster of Apache Spark, which it installs, Java included
# make proxy          the tests of the login in front of the UI, which need nginx (apt install nginx)
# make faults        disturb runs at every file operation (EVERY=10: at every tenth)
# make walk          click through the web UI by headless Chromium and take its pictures (OUT=folder)
# make deploy-files  parse the files of deploy/ by their own tools, which it installs
# make audit         look for known vulnerabilities in what constraints*.txt pin
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

.PHONY: materialize test runs set-up commands nights check postgres s3 mlflow spark proxy faults walk deploy-files audit forgetting dev sample clean

# Where the feed is ingested by days, `asset materialize` wants to be told which; the job ingests what is missing or has changed.
FIRST_DAY := $(or $(RECSYS_FIRST_DAY),$(shell sed -n 's/^RECSYS_FIRST_DAY=//p' .env 2> /dev/null))
EVERYTHING := $(if $(FIRST_DAY),job execute --job retrain,asset materialize --select '*')

# CONFIG names a file of run configuration.
materialize: $(VENV)/.installed $(DAGSTER_HOME)/.initialised
	$(QUIET) $(BIN)/dagster $(EVERYTHING) -m recsys_pipeline.definitions \
		$(if $(CONFIG),-c $(CONFIG)) -c examples/console.yaml
	@echo
	@$(BIN)/python -m recsys_pipeline

# What needs something beside the project, or more than a minute, has a target of its own.
DEFAULT := not runs and not commands and not nights and not forgetting and not s3 and not postgres and not mlflow and not proxy and not spark and not deploy_files
test: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m "$(DEFAULT)"

runs: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m runs

commands: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 --dist worksteal -m commands

nights: $(VENV)/.installed-dev
	$(BIN)/pytest -m nights

# What all the other targets need at once, so that none installs anything while another runs.
set-up: $(VENV)/.installed-dev .venv-mlflow/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[s3-server,postgres-server,spark-server,mlflow,deploy-files,audit,browser]'
	touch $(addprefix $(VENV)/.installed-,s3 postgres spark mlflow deploy-files audit browser)

s3: $(VENV)/.installed-s3
	$(BIN)/pytest -m s3 recsys_pipeline_tests/s3

mlflow: $(VENV)/.installed-mlflow .venv-mlflow/.installed
	$(BIN)/pytest -m mlflow recsys_pipeline_tests/mlflow

spark: $(VENV)/.installed-spark $(VENV)/.installed-s3
	$(BIN)/pytest -m spark recsys_pipeline_tests/spark

proxy: $(VENV)/.installed-dev
	$(BIN)/pytest -m proxy recsys_pipeline_tests/proxy

check: $(VENV)/.installed-dev $(DAGSTER_HOME)/.initialised
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/recsys check examples/*.yaml
	$(BIN)/dg check defs

forgetting: $(VENV)/.installed-dev
	$(BIN)/pytest -m forgetting

postgres: $(VENV)/.installed-postgres
	$(BIN)/pytest -m postgres

deploy-files: $(VENV)/.installed-deploy-files
	$(BIN)/pytest -m deploy_files

audit: $(VENV)/.installed-audit
	$(BIN)/python scripts/audit.py $(BIN)/pip-audit constraints.txt constraints-mlflow.txt

EVERY ?= 1
faults: $(VENV)/.installed-dev
	@command -v cc > /dev/null || $(BIN)/pip install --quiet -c constraints.txt ziglang
	$(BIN)/python -m recsys_pipeline_tests.faults --every $(EVERY)

dev: $(VENV)/.installed $(DAGSTER_HOME)/.initialised
	@$(BIN)/recsys check
	@exec env $(QUIET) $(BIN)/python scripts/whole.py $(BIN)/dagster dev -w workspace.yaml --host $(RECSYS_UI_HOST) --port $(RECSYS_UI_PORT)

OUT ?= $(or $(TMPDIR),/tmp)/recsys_pipeline-walk
walk: $(VENV)/.installed-browser
	$(BIN)/python -m recsys_pipeline_tests.browser $(OUT)

sample:
	$(PYTHON) data/make_sample.py

clean:
	rm -rf $(VENV) .venv-mlflow .dagster_home data/warehouse

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

$(VENV)/.installed-spark: $(VENV)/.installed-dev
	$(INSTALL) '.[spark-server]'

$(VENV)/.installed-browser: $(VENV)/.installed-dev
	$(INSTALL) '.[browser]'

$(VENV)/.installed-mlflow: $(VENV)/.installed-dev
	$(INSTALL) '.[mlflow]'

# The server has an environment of its own: it holds back pyarrow.
.venv-mlflow/.installed: constraints-mlflow.txt | $(VENV)/bin/python
	$(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/pip install --quiet -c constraints-mlflow.txt mlflow
	touch $@

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
