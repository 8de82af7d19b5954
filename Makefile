# make demo    the whole oracle on this machine: chain, program, model, emulators, daemon
# make test    every test, from nothing
.DEFAULT_GOAL := help
.PHONY: help demo test tests test-all mutants lint program lock clean
SHELL := /bin/bash

# The first interpreter from 3.11 to 3.13 that really runs; `make PYTHON=... demo` overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

# Python keeps the bytecode of what it imports, even where the environment forbids it: a test run starts some hundred
# processes, and to compile everything anew takes each of them a second.
export PYTHONDONTWRITEBYTECODE :=

help:
	@sed -n 's/^# //p' Makefile | head -2

# Not compiled in advance: most of what is installed is never imported.
$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing into $(VENV) (once, about a minute)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/oracle demo

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The linters, which take one processor half a minute, beside the tests.
test: $(VENV)/.installed
	@$(MAKE) --no-print-directory --jobs=2 lint tests

# Four files at a time: much of a test's time is waiting for a slot, a socket or a process. In their own order, because
# the files with the fewest tests, which xdist would begin last, are those that take longest.
tests: $(VENV)/.installed
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test-all: lint
	ORACLE_TEST_LENGTH=long $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --timeout 3600
	$(MAKE) mutants

# Changes the core in a thousand ways, and fails where too many of them are noticed by no test.
mutants: $(VENV)/.installed
	$(BIN)/python scripts/mutation_score.py

# Rebuilds the program's bytecode, IDL and checksums under idl/. Nothing else ever builds them.
program:
	scripts/build-program

# Resolves the dependencies anew; the only target that may change requirements.lock. Needs uv.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 --all-extras --group test pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist mutants .pytest_cache .mypy_cache .ruff_cache
