# Each target sets up what it needs: an environment in .venv, made again when the dependencies change.
PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench

# uv reads neither pip's settings nor its environment variables.
ifneq ($(UV),)
  ifneq ($(PIP_FIND_LINKS),)
    export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
  endif
  INSTALL = "$(UV)" pip install --python $(BIN)/python -c constraints.txt
  MAKE_VENV = "$(UV)" venv --allow-existing --python "$(PYTHON)" $(VENV)
else
  INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
  MAKE_VENV = "$(PYTHON)" -m venv $(VENV)
endif

.PHONY: help demo test slow lint format bench clean

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY) ## Collect, train, compare, film: the whole tool on a pendulum, in under 5 minutes
	$(BIN)/python scripts/demo.py

test: $(READY) ## Run the test suite, but for what takes minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

slow: $(READY) ## Run the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: $(READY) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BENCH_READY) ## Time the environments beside their peers
	$(BIN)/python benchmarks/env_steps.py

clean: ## Remove the environment and the caches; data and runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "PhysGym needs Python 3.10 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (once; torch is a large download)"
	@$(MAKE_VENV)
	@$(INSTALL) -e '.[dev]'
	@touch $@

$(BENCH_READY): $(READY)
	@$(INSTALL) -e '.[bench]'
	@$(INSTALL) --no-deps gymnax
	@touch $@
