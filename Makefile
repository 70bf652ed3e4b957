# Everything happens in .venv; bare `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GENAI := benchmarks/.venv-genai
RECIPE ?= recipes/tiny.yaml
# One thread per test worker: the workers already fill the cores.
TEST_ENV := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help bundle test test-full check format bench bench-env train-tiny clean

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
	$(TEST_ENV) $(BIN)/pytest -n 2 --no-loadscope-reorder

test-full: $(INSTALLED) ## run the slow full-size tests too
	$(BIN)/pytest -m 'full or not full'

check: $(INSTALLED) ## lint, format and type checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(INSTALLED) bench-env ## measure against others and at full size; writes benchmarks/*.{json,md}
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.executor
	$(BIN)/python -m benchmarks.palettization
	$(BIN)/python -m benchmarks.int4_quality
	$(BIN)/python -m benchmarks.int4_build

bench-env: $(GENAI)/.installed ## install onnxruntime-genai's builder, which int4 builds are compared with

$(GENAI)/.installed: benchmarks/genai.txt
	$(PYTHON) -m venv $(GENAI)
	$(GENAI)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

train-tiny: $(INSTALLED) ## train the shipped tiny FastVLM anew (CPU, under an hour)
	$(BIN)/python -m reference.tiny.train --out build/tiny-checkpoint --seed 0

clean: ## remove the environment, the store and what was built
	rm -rf $(VENV) $(GENAI) .store dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
