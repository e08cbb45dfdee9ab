# The whole developer interface; .ci/run and the README use these words and no others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Tests side by side, one process a processor; ARGS="-n 0 …" runs them in one, for a debugger.
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4

.PHONY: train test test-slow lint format map bench record build
.DEFAULT_GOAL := train

$(VENV)/installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

train: $(VENV)/installed      ## one run on the phantom; ARGS="model=unetpp data=folder data.root=/my/scans"
	$(BIN)/python -m seg.train $(ARGS)

test: $(VENV)/installed       ## the default tier, under four minutes on two cores
	$(PYTEST) --dist=worksteal $(ARGS)

test-slow: $(VENV)/installed  ## what the default tier leaves out: several processes, servers, browsers, wheels, real scans
	$(PYTEST) --dist=loadfile -m "slow and not gpu" $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

map: $(VENV)/installed         ## the map in CONTRIBUTING.md, from the first lines of the modules
	$(BIN)/python tests/house.py

bench: $(VENV)/installed      ## the short ones of the figures in benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks $(ARGS)

record: $(VENV)/installed     ## the record on Hippocampus from scratch, about two hours; ARGS="data.root=/data/Task04_Hippocampus"
	$(BIN)/python -m benchmarks.record $(ARGS)

build: $(VENV)/installed      ## sdist and wheel in dist/
	$(BIN)/python -m build
