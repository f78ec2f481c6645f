# make run    a model trained on the demo site, from web pages to a promoted model
# make test   lint, types, tests, benchmark floors, deployment dry run
# make test-slow   the tests that take longest: kills, served runs, a production; benchmarks/results/slow.json
# make bench-train   training beside stock run_clm
# make bench-clean   extraction, dedup and chunking beside their peers (an hour; BENCH="--documents 20000" for less)
# All make the environment first: .venv, from the versions in constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
PIP_FLAGS ?= --quiet --disable-pip-version-check

.PHONY: run test test-slow lint types tests floors deployments bench-train bench-clean install clean

run: install
	$(BIN)/prosemill demo

test: install lint types tests floors deployments

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

tests:
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not gpu and not network and not slow"

test-slow: install
	$(BIN)/python -m benchmarks.slow

floors:
	$(BIN)/python -m benchmarks.floors

deployments:
	$(BIN)/python -m deployments.deploy --dry-run data/demo/recipe.toml > /dev/null

bench-clean: install
	$(BIN)/python -m benchmarks.clean $(BENCH)

bench-train: install
	$(BIN)/python -m benchmarks.train --out benchmarks/results/train-small.json

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prosemill needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Next: make PYTHON=python3.11")'
	@test -d .venv || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@echo "Installing into .venv (a few minutes the first time) …"
	$(BIN)/pip install $(PIP_FLAGS) --constraint constraints.txt --editable ".[demo,dev]"
	@touch .venv/installed

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache
