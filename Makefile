# `make help` lists the commands. All work in .venv/, which they make themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := operator,runtime,onnx,cli,devcluster,demo
STAMP := $(VENV)/.installed

.PHONY: help
help: ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@echo "==> .venv: installing Python packages (once, and when pyproject.toml or constraints.txt change)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' --constraint constraints.txt
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]' --group lint --group test
	@touch $@

.PHONY: setup
setup: $(STAMP) ## make .venv/ with everything in it

.PHONY: fmt lint types arch
fmt: $(STAMP) ## format the code and mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
lint: $(STAMP) ## ruff: style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
types: $(STAMP) ## mypy, strict
	$(BIN)/mypy api/canarium_api operator/canarium_operator runtime/canarium_runtime cli/canarium_cli devcluster/canarium_devcluster
arch: $(STAMP) ## import-linter: who may import whom
	$(BIN)/lint-imports
