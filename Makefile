# Everything here works in a fresh clone on a machine that has Python 3.11 or newer, git and make:
# a target sets up what it needs in .venv, and does it again when pyproject.toml changes.

VENV ?= .venv
BIN := $(VENV)/bin

# The first interpreter that runs (a shim may exist and fail), is new enough, and can build an
# environment (Debian packs `venv` apart).
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		>/dev/null 2>&1 && echo "$$python" && break; done)

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
BENCH_PIP = $(BENCH)/bin/python -m pip --quiet --disable-pip-version-check

# The processes of a test run share one PostgreSQL server; see tests/conftest.py.
PYTEST_ARGS ?= -n auto --dist worksteal
# What a target hands on: make test ARGS='-k retry', make demo ARGS='--database postgresql://...'
ARGS ?=

# The engines that are measured beside rowtine have an environment of their own: nothing that they
# need ever meets the tests.
BENCH := $(VENV)/bench

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all lint format bench bench-full clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## index a source tree with two workers, kill one of them, lose nothing
	@$(BIN)/rowtine demo $(ARGS)

test: $(VENV)/.test ## run the tests on SQLite and PostgreSQL (ARGS='-k word' to choose)
	@$(BIN)/pytest $(PYTEST_ARGS) $(ARGS)

test-all: $(VENV)/.test ## the same, each test in every way that it can run, and ten times the examples
	@ROWTINE_EXAMPLES=200 $(BIN)/pytest $(PYTEST_ARGS) --every-pair $(ARGS)

lint: $(VENV)/.lint ## check style, format, types and the import contract
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy src $(wildcard tests/typing)
	$(BIN)/pyright --pythonpath $(BIN)/python src $(wildcard tests/typing)
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.lint ## put the code into the one format, and fix what can be fixed
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

bench: $(BENCH)/.peers ## measure, beside other engines, what takes a few minutes
	@$(BENCH)/bin/python -m benchmarks $(ARGS)

bench-full: $(BENCH)/.peers ## the same with every size, five times over: about an hour
	@$(BENCH)/bin/python -m benchmarks --full $(ARGS)

clean: ## remove the environment, caches and what builds leave behind
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.11 or newer that can make a virtual environment was found." >&2; \
		echo "Install one (on Debian also python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV)
	@touch $@

# The larger sets hold the smaller ones, so their stamps are set with them.
$(VENV)/.demo: pyproject.toml $(VENV)/.created
	@echo "Installing rowtine"
	@$(PIP) install --editable '.[postgres]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.created
	@echo "Installing rowtine and what its tests need"
	@$(PIP) install --editable '.[test]'
	@touch $(VENV)/.demo $@

$(VENV)/.lint: pyproject.toml $(VENV)/.created
	@echo "Installing rowtine, what its tests need, and the linters"
	@$(PIP) install --editable '.[test,lint]'
	@touch $(VENV)/.demo $(VENV)/.test $@

# One at a time: an engine that cannot be installed takes no other with it.
$(BENCH)/.peers: pyproject.toml benchmarks/peers.txt $(VENV)/.created
	@echo "Installing rowtine and the engines beside it"
	@$(BIN)/python -m venv $(BENCH)
	@$(BENCH_PIP) install --editable '.[bench]'
	@grep -v '^#' benchmarks/peers.txt | while read -r packages; do \
		$(BENCH_PIP) install $$packages || echo "Could not install $$packages" >&2; done
	@if command -v npm >/dev/null; then \
		npm install --silent --no-fund --no-audit --ignore-scripts \
			--prefix $(BENCH)/npm @restatedev/restate-server \
			|| echo "Could not install the server of Restate" >&2; \
	else echo "No npm: the server of Restate cannot be installed" >&2; fi
	@touch $@
