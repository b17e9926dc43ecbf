# `make demo` and `make test` set up everything that they need; a second call finds it in place.
#
#   EXTRA=gpu     install vLLM's GPU build (default: what is installed, else cpu)
#   DOCKER=skip   neither install nor start a Docker engine; DOCKER=require: fail where there is none

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

EXTRA ?= $(if $(wildcard .venv/.installed-gpu-*),gpu,cpu)
DOCKER ?= auto
BIN := .venv/bin
LOCK := requirements/$(EXTRA).lock
INSTALLED := .venv/.installed-$(EXTRA)-$(shell sha256sum <$(LOCK) | cut -c1-16)

# No usage reports, and no look-ups on the Hugging Face hub: the demo and the tests train their own
# models.
export RAY_USAGE_STATS_ENABLED := 0
export VLLM_NO_USAGE_STATS := 1
export VLLM_DO_NOT_TRACK := 1
export DO_NOT_TRACK := 1
demo test bench: export HF_HUB_OFFLINE := 1
# Small models: two threads on one shared core are ten times slower than one.
test bench: export OMP_NUM_THREADS ?= 1

.PHONY: help setup sandbox demo test lint bench clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 15

setup: $(INSTALLED) ## make the virtual environment .venv from the lock

$(INSTALLED):
	@./install.sh $(EXTRA)

sandbox: $(INSTALLED) ## install and start a Docker engine where there is none, build the image
	@DOCKER=$(DOCKER) sandbox/install-engine.sh

demo: sandbox ## the whole method on the scale model: a table and runs/demo/report/
	@DOCKER=$(DOCKER) $(BIN)/python -m jobs.demo

test: sandbox ## the whole test suite in two processes, real parts included
	@$(BIN)/python -m pytest -q --durations=10 -n 2 --no-loadscope-reorder

lint: $(INSTALLED) ## ruff, pyright, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: sandbox ## every benchmark, one JSON object each
	@for file in tests/benchmarks/[a-z]*.py; do \
	    $(BIN)/python -m tests.benchmarks.$$(basename $$file .py) --json; \
	done

clean: ## remove the virtual environment and caches; results in runs/ stay
	rm -rf .venv *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
