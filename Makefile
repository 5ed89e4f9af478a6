# One target per task. Packages are installed into .venv with the exact versions and hashes in requirements-dev.lock, and
# again if requirements-dev.lock or pyproject.toml changes. The image uses requirements.lock, which contains neither the
# sandbox's packages nor the development packages.

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-faults check audit sbom docs bench bench-growth bench-peers lock clean

# The first Python found that is 3.11 or newer. `make PYTHON=/path/to/python demo` selects another one.
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)

# The tests start many short processes. Without bytecode files, each of them would compile every module again. Tests mostly
# wait for these processes, so there are more test processes than cores.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	--python-version 3.11 $(UPGRADE)

help:
	@echo "make demo         show what the bridge does; needs no account and no configuration"
	@echo "make serve        run the service with the settings in .env and the rules in rules.yaml"
	@echo "make test         run the tests, except the long ones"
	@echo "make test-faults  run the long tests: kills, freezes, full disks, clock jumps, large inputs, many random inputs"
	@echo "make check        run the linter, the formatter, the type checker, the import contracts and the audit, if PyPI answers"
	@echo "make audit        look up the locked packages in PyPI's database of known vulnerabilities"
	@echo "make sbom         write the packages of the image to build/sbom.json (CycloneDX)"
	@echo "make docs         generate docs/reference from the code"
	@echo "make bench        run the benchmarks against baselines measured in the same run"
	@echo "make bench-growth measure with 100,000 and 1,000,000 stored events against 5,000"
	@echo "make bench-peers  measure the bridge next to Redis, arq, Procrastinate and DBOS"
	@echo "make lock         update requirements.lock and requirements-dev.lock (UPGRADE=--upgrade: to the newest versions)"
	@echo "make clean        remove .venv, build files and caches"

$(READY): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "The bridge needs Python 3.11 or newer: make PYTHON=/path/to/python demo"; exit 1; }
	@echo "Installing dependencies into .venv with $(PYTHON). This happens once and takes about half a minute ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(PIP) install --require-hashes --no-deps --no-compile -r requirements-dev.lock
	@# "compat" puts this folder on the import path: type checkers of connector authors do not follow import hooks.
	@# setuptools explains at length that this and the folders of data files may change; it is not an error.
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --no-compile \
		--config-settings editable_mode=compat -e .
	@touch $@

demo: $(READY)
	@$(BIN)/bridge demo

serve: $(READY)
	@$(BIN)/bridge serve

test: $(READY)
	@$(BIN)/pytest -m "not faults" --numprocesses 5 --dist worksteal

test-faults: $(READY)
	@$(BIN)/pytest -m "faults and not alone" --numprocesses 8 --dist worksteal
	@$(BIN)/pytest -m "faults and alone"
	@$(BIN)/pytest -m "hypothesis and not faults" --hypothesis-profile long --numprocesses 4 --dist worksteal

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy bridge connectors
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/audit.py --allow-offline

audit: $(READY)
	@$(BIN)/python .ci/audit.py

sbom: $(READY)
	@mkdir -p build
	@$(BIN)/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml \
		--output-reproducible --output-file build/sbom.json
	@echo "build/sbom.json lists the packages of requirements.lock"

docs: $(READY)
	@$(BIN)/python docs/reference/generate.py

bench: $(READY)
	@$(BIN)/python -m bench

bench-growth: $(READY)
	@$(BIN)/python -m bench --growth

bench-peers: $(READY)
	@test -x build/peers/bin/python || (python3 -m venv build/peers && build/peers/bin/pip install --quiet -r bench/peers/requirements.txt)
	@$(BIN)/python -m bench.peers --python build/peers/bin/python

lock: $(READY)
	@$(COMPILE) --output-file requirements.lock pyproject.toml
	@$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
