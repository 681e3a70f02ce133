# Every target makes the virtual environment it needs and installs into it once; `make help` lists them.
#
#   PYTHON=python3.13   the interpreter to build the environment from (default: the first Python >= 3.11 found)
#   VENV=.venv-3.13     the environment's folder (default: .venv)
#   ARGS=...            more arguments for the command, e.g. make test ARGS='-k affine'

PYTHON ?=
VENV ?= .venv
ARGS ?=

CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
BIN := $(VENV)/bin
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
VERSION := import sys; print("%d.%d" % sys.version_info[:2])

.PHONY: help demo test lint types bench gpu notebooks docs build clean venv
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo-stamp  ## prove the worked example, then train on handwritten digits
	$(BIN)/python -m adjax
	$(BIN)/python -m adjax train digits $(ARGS)

test: $(VENV)/.test-stamp  ## run the tests and the docstrings' examples
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.dev-stamp  ## check the style (ruff)
	$(BIN)/python -m ruff check $(ARGS) .

types: $(VENV)/.dev-stamp  ## check the types (mypy)
	$(BIN)/python -m mypy $(ARGS)

bench: $(VENV)/.bench-stamp  ## time against autodiff and other libraries
	$(BIN)/python -m benchmarks $(ARGS)

gpu:  ## test and time the layers on an NVIDIA GPU; where there is none, say so
	@if found=$$(nvidia-smi -L 2>&1) && [ -n "$$found" ]; then \
	  echo "$$found" && $(MAKE) --no-print-directory on-gpu; \
	else \
	  echo "make gpu: skipped, no NVIDIA GPU here (nvidia-smi -L: $${found:-names none})"; \
	fi

.PHONY: on-gpu
on-gpu: export ADJAX_ACCELERATOR := cuda
on-gpu: export JAX_PLATFORMS := cuda,cpu
on-gpu: export XLA_PYTHON_CLIENT_PREALLOCATE := false
on-gpu: $(VENV)/.gpu-stamp
	$(BIN)/python -m pytest tests/gpu $(ARGS)
	$(BIN)/python -m benchmarks --json benchmarks/results/gpu.json

notebooks: $(VENV)/.test-stamp  ## execute the notebooks and write them (ARGS=--check: only compare)
	$(BIN)/python tools/notebooks.py $(ARGS)

docs: $(VENV)/.docs-stamp  ## build the documentation into site/html (ARGS=--open: and look at it in Chromium)
	$(BIN)/python -m tools.docs $(ARGS)

build: $(VENV)/.dev-stamp  ## build the wheel and the source archive into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist $(ARGS)

clean:  ## remove the environment, caches and built files
	@if [ -f "$(VENV)/pyvenv.cfg" ]; then rm -rf "$(VENV)"; fi
	rm -rf dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.*' -prune -exec rm -rf {} +

# What each stamp installs beside the package itself (editable).
$(VENV)/.demo-stamp: EXTRAS := train,plot
$(VENV)/.test-stamp: EXTRAS := test
$(VENV)/.dev-stamp: EXTRAS := dev,train,plot
$(VENV)/.bench-stamp: EXTRAS := bench
$(VENV)/.docs-stamp: EXTRAS := docs
$(VENV)/.gpu-stamp: EXTRAS := gpu

$(VENV)/.%-stamp: pyproject.toml | venv
	@echo "Installing adjax[$(EXTRAS)] into $(VENV) (the first time takes some minutes) ..."
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

# Runs every time, in a moment: makes the environment if there is none, and refuses one of another Python than asked for.
venv:
	@set -e; \
	if ! [ -x "$(BIN)/python" ]; then \
	  for python in $(CANDIDATES) none; do \
	    if "$$python" -c '$(RECENT)' 2>/dev/null; then break; fi; \
	  done; \
	  if [ "$$python" = none ]; then \
	    echo "adjax needs Python 3.11 or newer, and found none. Tried:" >&2; \
	    for python in $(CANDIDATES); do \
	      echo "  $$python: $$("$$python" --version 2>/dev/null || echo not found)" >&2; \
	    done; \
	    echo "Name one: make $(or $(firstword $(MAKECMDGOALS)),test) PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$("$$python" --version)"; \
	  if ! "$$python" -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear) "$(VENV)"; then \
	    rm -f "$(VENV)/bin/python"; \
	    echo "$$python could not make a virtual environment (on Debian: apt install python3-venv)." >&2; \
	    exit 1; \
	  fi; \
	fi; \
	[ -x "$(BIN)/pip" ] || "$(BIN)/python" -m ensurepip --default-pip >/dev/null; \
	have=$$("$(BIN)/python" -c '$(VERSION)'); \
	wanted=$(if $(PYTHON),$$("$(PYTHON)" -c '$(VERSION)'),$$have); \
	if [ "$$have" != "$$wanted" ]; then \
	  echo "$(VENV) holds Python $$have, and PYTHON=$(PYTHON) is $$wanted: make clean, or name another VENV=" >&2; \
	  exit 1; \
	fi; \
	if ! "$(BIN)/python" -c '$(RECENT)'; then \
	  echo "$(VENV) holds Python $$have, and adjax needs 3.11 or newer: make clean, then again." >&2; \
	  exit 1; \
	fi
