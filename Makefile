# One command each. Everything lives in .venv, which is made once and again whenever requirements.lock or
# pyproject.toml changes; its packages are exactly those of the lock, by hash.

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-faults check bench lock clean

# The first Python of at least 3.11; `make PYTHON=/path/to/python demo` chooses another.
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)

# Tests start some hundred short processes; each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet

help:
	@echo "make demo         see what the bridge does: no account and no set-up needed"
	@echo "make serve        run the service with .env and rules.yaml"
	@echo "make test         run the tests"
	@echo "make test-faults  run the long fault injection: kills, freezes, full disks"
	@echo "make check        lint, check types and import order"
	@echo "make bench        measure against baselines of the same run"
	@echo "make lock         resolve requirements.lock again (make lock UPGRADE=--upgrade: newest versions)"
	@echo "make clean        remove what these commands made"

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "The bridge needs Python 3.11 or newer: make PYTHON=/path/to/python demo"; exit 1; }
	@echo "Setting up .venv with $(PYTHON); once, it takes about half a minute ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(PIP) install --require-hashes --no-deps --no-compile -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --no-compile -e .
	@touch $@

demo: $(READY)
	@$(BIN)/bridge demo

serve: $(READY)
	@$(BIN)/bridge serve

test: $(READY)
	@$(BIN)/pytest -m "not faults" --numprocesses 3 --dist worksteal

test-faults: $(READY)
	@$(BIN)/pytest -m faults

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy bridge connectors
	@$(BIN)/lint-imports

bench: $(READY)
	@$(BIN)/python -m bench

lock: $(READY)
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip --disable-pip-version-check --quiet install uv
	@build/lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --extra dev \
		--python-version 3.11 $(UPGRADE) --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
