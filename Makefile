# Everything happens in .venv; bare `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GENAI := benchmarks/.venv-genai
PEERS := benchmarks/.venv-peers
CONSUMERS := .consumers
RECIPE ?= recipes/tiny.yaml
# One thread per test worker: the workers already fill the cores.
TEST_ENV := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help bundle release test test-full test-consumers consumers-env browser check format bench bench-env \
  bench-latency bench-scale bench-peers \
  report-examples compare-latency train-tiny clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[build,mlx,hub,dask,dev]'
	@touch $@

bundle: $(INSTALLED) ## build the tiny bundle end to end into dist/tiny (RECIPE=... for another)
	$(BIN)/fastvlm-compile build $(RECIPE)

# Every recipe in one call, so that one that fails leaves the others alone. With a cluster:
# make release BUILD_FLAGS='--scheduler tcp://HOST:8786 --store /shared/store'
RELEASE ?= $(wildcard $(addprefix recipes/,$(addsuffix .yaml,tiny real-tower 0.5b 1.5b 7b)))
BUILD_FLAGS ?=
release: $(INSTALLED) ## build the matrix of recipes (RELEASE="A B", BUILD_FLAGS=...)
	$(BIN)/fastvlm-compile build $(RELEASE) $(BUILD_FLAGS)

test: $(INSTALLED) ## run the tests
	$(TEST_ENV) $(BIN)/pytest -n 2 --no-loadscope-reorder

test-full: $(INSTALLED) ## run the slow full-size tests too
	$(BIN)/pytest -m 'not consumers'

test-consumers: consumers-env ## load the bundles with what people load them with
	$(BIN)/fastvlm-compile build recipes/tiny.yaml
	$(BIN)/fastvlm-compile build recipes/real-tower.yaml
	$(BIN)/fastvlm-compile build tests/consumers/0.5b-onnx.yaml
	$(TEST_ENV) $(BIN)/pytest -m consumers tests/consumers

# Each consumer in an environment of its own, pinned in tests/consumers/environments.
CONSUMER_VENVS := venv-genai venv-mlx-vlm venv-onnxruntime venv-transformers
consumers-env: $(INSTALLED) $(CONSUMER_VENVS:%=$(CONSUMERS)/%/.installed) \
  $(CONSUMERS)/node/.installed browser ## install these consumers into .consumers

$(CONSUMERS)/venv-%/.installed: tests/consumers/environments/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

browser: # the one thing that no environment of ours can hold
	@tests/consumers/environments/browser.sh

$(CONSUMERS)/node/.installed: tests/consumers/environments/node/package.json
	mkdir -p $(@D)
	cp $< $(@D)/
	cd $(@D) && ONNXRUNTIME_NODE_INSTALL=skip npm install --no-package-lock --no-audit --no-fund \
	  --loglevel=error
	@touch $@

check: $(INSTALLED) ## lint, format and type checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(INSTALLED) bench-env ## measure the tiny build, and our parts beside others; writes benchmarks/*.{json,md}
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.executor
	$(BIN)/python -m benchmarks.linear
	$(BIN)/python -m benchmarks.palettization
	$(BIN)/python -m benchmarks.int4_quality
	$(BIN)/python -m benchmarks.int4_build

bench-env: $(GENAI)/.installed ## install onnxruntime-genai's builder, which int4 builds are compared with

$(GENAI)/.installed: benchmarks/genai.txt
	$(PYTHON) -m venv $(GENAI)
	$(GENAI)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# The 0.5B takes hours to build the first time; BUNDLE_05B=DIR is one that is there already.
BUNDLE_05B ?= dist/0.5b
bench-latency: $(BUNDLE_05B)/manifest.json dist/tiny/manifest.json bench-peers ## speed beside the peers; writes benchmarks/latency.{json,md}
	$(BIN)/python -m benchmarks.latency --bundle $(BUNDLE_05B) --trained dist/tiny

# From nothing, in stores of their own that are dropped when they are measured. What is needed is
# told first; SCALE="recipes/7b.yaml" for one, SCALE_FLAGS="--work DIR" for another disk, and
# SCALE_FLAGS=--in-parts for less of it: a target at a time, each recorded by itself (--part onnx).
SCALE ?=
SCALE_FLAGS ?=
bench-scale: $(INSTALLED) ## build 0.5b, 1.5b and 7b, hours each, up to 110 GB of disk; writes benchmarks/scale.{json,md}
	$(BIN)/python -m benchmarks.scale $(SCALE) $(SCALE_FLAGS)

dist/%/manifest.json: | $(INSTALLED)
	$(BIN)/fastvlm-compile build recipes/$*.yaml

bench-peers: bench-env $(PEERS)/.installed ## install llama.cpp too, compiled here from its source package

# Without the image encoders, half of what there is to compile.
$(PEERS)/.installed: benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	CMAKE_ARGS=-DLLAVA_BUILD=OFF $(PEERS)/bin/python -m pip install --quiet \
	  --disable-pip-version-check --no-binary llama-cpp-python --requirement $<
	@touch $@

# Both bundles on one machine, in turns; each is built by its own code.
BASE ?= HEAD~1
SUMMARY := $(or $(GITHUB_STEP_SUMMARY),build/latency.md)
compare-latency: bundle ## time the tiny bundle beside that of BASE (HEAD~1); a table in build/latency.md
	rm -rf build/base
	git worktree prune
	git worktree add --detach build/base '$(BASE)'
	$(MAKE) -C build/base bundle
	$(BIN)/fastvlm-compile latency compare build/base/dist/tiny dist/tiny --variant fp32 --variant int4 \
	  --fail-if 'decode.p50>10%' --fail-if 'prefill.280.p50>10%' --fail-if 'vision.p50>10%' \
	  --markdown $(SUMMARY)

# The same measurements, judged twice: as they were built, and with one threshold nothing can hold.
report-examples: bundle ## write a passing and a failing report of the tiny bundle into build/
	mkdir -p build
	$(BIN)/fastvlm-compile report dist/tiny --out build/report-pass.html
	awk '!done && sub(/max: 1\.0e-6$$/, "max: 0") { done = 1 } 1' recipes/tiny.yaml > build/impossible.yaml
	$(BIN)/fastvlm-compile report dist/tiny --gates build/impossible.yaml --out build/report-fail.html
	grep -q 'class="verdict passed"' build/report-pass.html
	grep -q 'class="verdict failed"' build/report-fail.html

train-tiny: $(INSTALLED) ## train the shipped tiny FastVLM anew (CPU, under an hour)
	$(BIN)/python -m reference.tiny.train --out build/tiny-checkpoint --seed 0

clean: ## remove the environment, the store and what was built
	rm -rf $(VENV) $(GENAI) $(PEERS) $(CONSUMERS) .store dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
