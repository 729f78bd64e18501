# Every target makes .venv first when it is missing or older than the lock.
#   make train ARGS="--agents 1000"     make test ARGS="tests/core -n 0"     make bench ARGS="limit --out runs/bench.jsonl"
#   make PYTHON=python3.13 train        which Python the new .venv gets (default: the first supported one on the path)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help train test lint format bench bench-peers notebooks clean

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
ARGS ?=
PEERS := $(basename $(notdir $(wildcard bench/peers/*.txt)))

help:
	@echo "make train   learn the preset cartpole            (ARGS: more options of 'fedjax-rl train')"
	@echo "make test    the tests, but for the slow ones     (ARGS: more options of pytest)"
	@echo "make lint    ruff and pyright"
	@echo "make format  let ruff write what it can"
	@echo "make bench   measure the speed on this machine    (ARGS: a command of 'python -m bench' instead of all)"
	@echo "make bench-peers   the same against other libraries, in environments of their own   (ARGS: options of 'bench peers')"
	@echo "make notebooks   execute all theory notebooks in full, in place   (ARGS: --quick, or names such as 02)"
	@echo "make clean   remove .venv and .bench-peers"

train: $(READY)
	$(BIN)/fedjax-rl train --preset cartpole $(ARGS)

# Workers: one per logical core, eight at most, each compiles for itself. `-n 0` in ARGS runs in one process.
test: $(READY)
	$(BIN)/python -m pytest -n logical --maxprocesses 8 $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m bench $(or $(ARGS),all)

# The peers need about 2.5 GB. Where torch comes with CUDA, take its CPU build:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make bench-peers
bench-peers: $(READY) $(PEERS:%=.bench-peers/%/.ready)
	$(BIN)/python -m bench peers $(ARGS)

.bench-peers/%/.ready: bench/peers/%.txt | $(READY)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet -r $<
	@touch $@

notebooks: $(READY)
	$(BIN)/python experiments/run_notebooks.py $(ARGS)

clean:
	rm -rf $(VENV) .bench-peers

# The lock names every package, so nothing is resolved: --no-deps keeps unpinned packages out, `pip check` proves it whole.
$(READY): requirements-dev.lock pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	      echo "making $(VENV) with $$python"; $$python -m venv $(VENV); break; fi; done; \
	  [ -x $(BIN)/python ] || { echo "no Python 3.11, 3.12 or 3.13 found; name one: make PYTHON=/path/to/python3.12 ..."; exit 1; }; fi
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -r requirements-dev.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@
