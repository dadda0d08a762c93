# Each target does all its own set-up, in $(VENV); what is installed already is not installed again.
# make demo                          four hospitals train a model together
# make test                          everything that must hold
# make test TORCH='torch==2.13.0'    with this build of PyTorch
# make test JAX=jax                  and with JAX, whose tests are skipped otherwise
# make test RAY=ray                  and with Ray, likewise
# make test PARTS='postgresql'       and fail, rather than skip, where that is missing
# make test PYTHON=python3.12        with this Python (3.11 or newer)

VENV ?= .venv
TORCH ?= torch
JAX ?=
RAY ?=
PARTS ?=
PYTEST_ARGS ?=
YARDSTICKS ?= ../shared/bench

# The first candidate that runs (a shim on the PATH may not), is new enough, and can make environments.
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
    "$$python" -c '$(USABLE)' >/dev/null 2>&1 && { echo "$$python"; break; }; done)

# What a test may not skip for want of, since the set-up installs it.
UMBEL_REQUIRE ?= $(if $(TORCH),torch) $(if $(JAX),jax) $(if $(RAY),ray) matplotlib ml_dtypes nbclient pandas safetensors scipy sklearn tensorboard $(PARTS)

# Where code differs by system; it is checked as macOS and Windows see it, too.
BY_SYSTEM := src/umbel/arrays.py src/umbel/client src/umbel/store src/umbel/simulation

BIN := $(VENV)/bin
MADE := $(VENV)/.made
DEMO := $(VENV)/.ready-for-demo
TEST := $(VENV)/.ready-for-test-$(shell echo '$(TORCH) $(JAX) $(RAY)' | cksum | cut -d ' ' -f 1)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test check lint format types imports sizes house names unit docs build bench bench-deployment clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: $(DEMO) ## four real hospitals train a model: simulated, and with a server that is killed in between
	$(BIN)/python examples/heart_disease/demo.py

test: check unit ## check everything: style, types, layers, sizes, names, tests, docs, the built wheel

check: lint types imports sizes house names ## all that is checked without running the tests

lint: $(TEST)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(TEST) ## put the code into its form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(TEST)
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin $(BY_SYSTEM)
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 $(BY_SYSTEM)

imports: $(TEST)
	NO_COLOR=1 $(BIN)/lint-imports

sizes: $(TEST)
	$(BIN)/python tools/sizes.py

house: $(TEST)
	$(BIN)/python tools/house.py

names: $(TEST)
	$(BIN)/python tools/reference.py --check

unit: $(TEST) ## run the tests; PYTEST_ARGS='tests/unit -k mean' for some of them
	UMBEL_REQUIRE='$(UMBEL_REQUIRE)' $(BIN)/python -m pytest $(PYTEST_ARGS)

docs: $(TEST) ## write docs/reference.md anew and run the documentation
	$(BIN)/python tools/reference.py
	$(BIN)/python -m pytest tests/docs

build: $(TEST) ## build the wheel and the source archive into dist/
	$(BIN)/python -m hatchling build -d dist

bench: $(TEST) ## measure start-up, memory, and simulation against YARDSTICKS
	@missed=0; for figures in startup.py 'memory.py $(YARDSTICKS)' 'simulation.py $(YARDSTICKS)'; do \
	    $(BIN)/python bench/$$figures || missed=1; done; exit $$missed

bench-deployment: $(TEST) ## measure a server and its nodes on this machine, over TLS
	$(BIN)/python -m bench.deployment

clean: ## remove what the targets made, the environment included
	rm -rf $(VENV) dist build demo-output .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(MADE):
	@test -n '$(PYTHON)' || { echo 'Umbel needs Python 3.11 or newer with its venv module' \
	    '(on Debian and Ubuntu: apt install python3-venv). Then: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c '$(USABLE)' || { echo '$(PYTHON) is older than 3.11, or lacks venv' >&2; exit 1; }
	@echo 'Setting up $(VENV) with $(PYTHON), once ...'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(DEMO): $(MADE) pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[plot,server]'
	@touch $@

$(TEST): $(MADE) pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[plot,postgres,sklearn]' --group dev $(foreach word,$(TORCH) $(JAX) $(RAY),'$(word)')
	@rm -f $(VENV)/.ready-for-test-*
	@touch $@ $(DEMO)
