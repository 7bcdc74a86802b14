# make quickstart   the whole story on a laptop (about 12 minutes on two cores); make quickstart ARGS=--small takes two
# make test         the tests; SLOW=1 adds the slow ones
# make check        lint, format, types and tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUTPUT ?= runs/quickstart
ARGS ?=
PYTEST_ARGS ?=
SOURCES := pyproject.toml constraints.txt $(wildcard src/xvlm2vec/*.py src/xvlm2vec/*/*.py modeling/*.py trainer/*.py \
	corpus/*.py corpus/data/* hub/* eval/*)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Type checkers cannot follow the import hook of a lenient editable install.
EDITABLE = --config-settings editable_mode=strict --editable

.PHONY: quickstart test lint check clean

quickstart: $(VENV)/.run
	$(BIN)/xvlm2vec quickstart --output $(OUTPUT) $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(if $(SLOW),,-m "not slow") $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "xVLM2Vec needs Python 3.11 or newer; pass PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone, so that a CPU build on the machine is not passed over for the registry's newest one.
$(VENV)/.torch: | $(VENV)/bin/python
	$(INSTALL) torch
	@touch $@

$(VENV)/.run: $(VENV)/.torch $(SOURCES)
	$(INSTALL) $(EDITABLE) .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	$(INSTALL) $(EDITABLE) '.[dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist src/*.egg-info
