# Every target sets itself up from a bare clone and is quick when that is done.
PYTHON ?= python3
BIN := .venv/bin
RUNS ?= runs
FUZZ_SECONDS ?= 60
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all check bench fuzz lock clean

help:
	@echo "make quickstart | test | test-all | check | bench | fuzz | lock | clean"

.venv/.runtime: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "qoejax needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.runtime constraints-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints-dev.txt
	@touch $@

quickstart: .venv/.runtime
	$(BIN)/python -m experiments.prepare --dataset=simulated_iot/small --data_dir=$(RUNS)/data
	$(BIN)/python -m experiments.train --config=configs/quickstart.py --config.data.dir=$(RUNS)/data --workdir=$(RUNS)/quickstart
	$(BIN)/python -m experiments.evaluate --workdir=$(RUNS)/quickstart
	@echo "Open $(RUNS)/quickstart/report.html"

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 -m "not slow and not tf and not accelerator"

test-all: .venv/.dev
	$(BIN)/python -m pytest -n 2 -m "not tf and not accelerator"

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyrefly check

bench: .venv/.dev
	$(BIN)/python -m experiments.bench.rounds --clients=10
	$(BIN)/python -m experiments.bench.wired_rounds
	$(BIN)/python -m experiments.bench.scaleout
	$(BIN)/python -m experiments.bench.compile
	$(BIN)/python -m experiments.bench.sweep
	$(BIN)/python -m experiments.bench.simulator
	$(BIN)/python -m experiments.bench.captures
	$(BIN)/python -m experiments.bench.latency
	$(BIN)/python -m experiments.bench.latency --mode=throughput
	$(BIN)/python -m experiments.bench.log
	$(BIN)/python -m experiments.bench.prepare --rows=1000000

fuzz: .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	set -e; for target in tests/fuzz/*_target.py; do \
	  echo $$target; $(BIN)/python -m tests.fuzz.$$(basename $$target .py) -max_total_time=$(FUZZ_SECONDS); \
	done

lock: .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml --extra build -o constraints.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate pyproject.toml --extra build --extra dev -c constraints.txt -o constraints-dev.txt

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build
