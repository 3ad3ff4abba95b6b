# Needs make and a Python 3.11, 3.12 or 3.13 with its venv module. Everything else goes into .venv.
# To choose the interpreter: make PYTHON=/path/to/python3.12

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?=
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# pip and the tools keep their caches below HOME. If HOME is not set, they keep them below the checkout.
ifeq ($(strip $(HOME)),)
export HOME := $(CURDIR)/.token_pipelines/home
endif

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: .venv/.installed ## show the product on sample servers (ARGS=--once ends after the run)
	$(BIN)/token-pipelines demo $(ARGS)

.PHONY: check
check: lint ## lint, then test: every change must pass this
	@$(MAKE) test

.PHONY: lint
lint: .venv/.installed ## style, types and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: .venv/.installed ## all tests (ARGS="-k name" for some, ARGS="-n 0" on one core)
	$(PYTEST) $(ARGS)

.PHONY: quick
quick: .venv/.installed ## unit tests and whole days, with fewer random examples: under a minute
	$(PYTEST) --hypothesis-profile=quick tests/unit tests/integration/test_scenarios*.py $(ARGS)

.PHONY: bench
bench: .venv/.installed ## measure speed (ARGS=plan for one subject); mail and delivery need Postfix's smtp-sink and smtp-source
	$(BIN)/python -m bench $(ARGS)

.PHONY: chaos
chaos: .venv/.installed ## kill it at random, with a relay that fails at random, and count lost notices (ARGS="--seed 7 --recipients 500")
	PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

.PHONY: pictures
pictures: .venv/.installed ## take the README's pictures again (needs Chromium and pngquant)
	$(BIN)/python docs/pictures/make.py

.PHONY: lock
lock: ## write requirements.lock again: every dependency with its hashes (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra demo --group dev pyproject.toml -o requirements.lock

.PHONY: clean
clean: ## remove .venv, caches and the files that runs left behind
	rm -rf .venv .token_pipelines .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +

# Two stamp files: a changed lock installs all dependencies again, a changed pyproject.toml only the package.
# --no-deps, because the lock names every package: with dependencies, pip would look for a hash of gql[requests], and the
# lock has one of gql only.

.venv/.installed: .venv/.locked pyproject.toml
	@echo "Installing token-pipelines into .venv"
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.locked: requirements.lock
	@set -e; found=; bare=; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); do \
		"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || continue; \
		if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then found=$$python; break; fi; \
		bare=$$python; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
		echo "$$bare has no venv module; install it (on Debian and Ubuntu: the package python3-venv)." >&2; exit 1; \
	elif [ -z "$$found" ]; then \
		echo "No Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Making .venv with $$found, and installing the locked dependencies (a minute or two)"; \
	"$$found" -m venv --clear .venv
	@$(PIP) install --quiet --require-hashes --no-deps --requirement requirements.lock
	@$(PIP) check
	@touch $@
