# The habits of this project. `make help` lists them. Without make: see README.md.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
WORKERS ?= 2
DTYPE ?= best

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
INPUTS := pyproject.toml $(CONSTRAINTS)
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test proof check format bench bench-deps clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.installed-export  ## the whole path on the embedded model: prompting, SFT, rejection sampling, export, report
	$(BIN)/python -m ramify demo

test: $(VENV)/.installed-test  ## all tests but those marked `proof`
	$(PYTEST)

proof: $(VENV)/.installed-test $(VENV)/.installed-bench  ## what takes longer: recipes, pages in a browser, documentation
	@.ci/tools
	$(PYTEST) -m proof

check: $(VENV)/.installed-check  ## lint, format and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-check  ## let ruff fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-deps: $(VENV)/.installed-bench  ## install what the benchmarks compare with

bench: $(VENV)/.installed-bench  ## sampling, SFT, DPO and chat against their peers, side by side (DTYPE=bf16, fp32 or best)
	mkdir -p runs/bench
	$(BIN)/python -m benchmarks.sampling --dtype $(DTYPE) --out runs/bench/sampling.json
	$(BIN)/python -m benchmarks.sft --dtype $(DTYPE) --out runs/bench/sft.json
	$(BIN)/python -m benchmarks.dpo --dtype $(DTYPE) --out runs/bench/dpo.json
	$(BIN)/python -m benchmarks.chat --out runs/bench/chat.json

clean:  ## remove the virtual environment and caches (never runs/)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks recipes -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "the venv module is missing: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: $(INPUTS) | $(BIN)/python
	$(INSTALL) -e ".[$*]"
	@touch $@
