# Everything happens in .venv; bare `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RECIPE ?= recipes/tiny.yaml
# One thread per test worker: the workers already fill the cores.
TEST_ENV := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help bundle test test-full check format bench train-tiny clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[build,mlx,dev]'
	@touch $@

bundle: $(INSTALLED) ## build the tiny bundle end to end into dist/tiny (RECIPE=... for another)
	$(BIN)/fastvlm-compile build $(RECIPE)

test: $(INSTALLED) ## run the tests
	$(TEST_ENV) $(BIN)/pytest -n 2 --dist loadgroup

test-full: $(INSTALLED) ## run the slow full-size tests too
	$(BIN)/pytest -m 'full or not full'

check: $(INSTALLED) ## lint, format and type checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(INSTALLED) ## measure the full-size build; writes benchmarks/build_0.5b.{json,md}
	$(BIN)/python -m benchmarks

train-tiny: $(INSTALLED) ## train the shipped tiny FastVLM anew (CPU, under an hour)
	$(BIN)/python -m reference.tiny.train --out build/tiny-checkpoint --seed 0

clean: ## remove the environment, the store and what was built
	rm -rf $(VENV) .store dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
