# Everything sets itself up: `make demo`, `make test`. The newest supported Python that
# is here is taken, since newer ones get a newer and faster JAX.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
  $$python -c '' 2>/dev/null && echo $$python && break; done)
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: chromium demo test test-all test-lowest test-with fuzz lint setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; make PYTHON=python3.12 ..."; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	rm -rf demo
	$(RUN) -m experiments.figures.demo --out=demo

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# The page is tested in Chromium, with axe-core for barriers. As root on Debian Chromium is
# installed, with npm axe-core; without them those tests are passed over and say so.
chromium:
	@if ! command -v chromium chromium-browser google-chrome >/dev/null && \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update && apt-get install --yes chromium; } >/dev/null 2>&1 || \
	    echo "Chromium could not be installed: the page is not tested in a browser"; \
	fi
	@if [ ! -e node_modules/axe-core ] && command -v npm >/dev/null; then \
	  npm install --silent --no-save --no-package-lock --fetch-retries=0 --prefix . axe-core@4 \
	    >/dev/null 2>&1 || echo "axe-core could not be installed: barriers are not tested"; \
	fi

test: lint chromium
	$(RUN) -m pytest --numprocesses=auto --dist=worksteal

# Every Python that is supported and is here, each in an environment of its own. With
# pyenv: PYENV_VERSION=3.11:3.12:3.13 make test-all
test-all: lint
	@for version in 3.11 3.12 3.13; do \
	  if ! python$$version -c '' 2>/dev/null; then \
	    echo "python$$version is not here: passed over"; continue; \
	  fi; \
	  $(MAKE) --no-print-directory test-with WITH=python$$version || exit 1; \
	done

# The oldest versions that setup.cfg allows, as locks/lowest.txt names them.
test-lowest:
	$(MAKE) --no-print-directory test-with WITH=python3.11 LOCK=locks/lowest.txt

# What the two above do: in `.venv-NAME`, install and test. A lock pins everything.
NAME = $(notdir $(WITH))$(if $(LOCK),-$(notdir $(basename $(LOCK))))
test-with:
	$(WITH) -m venv .venv-$(NAME)
	.venv-$(NAME)/bin/python -m pip install --quiet $(if $(LOCK),-r $(LOCK)) --editable '.[dev]'
	.venv-$(NAME)/bin/python -m pytest --numprocesses=auto --dist=worksteal -m ''

# Hostile input for everything that reads any; docs/reliability.md tells of it.
fuzz: setup
	$(RUN) -m pip install --quiet --editable '.[fuzz]'
	$(RUN) -m experiments.robustness.fuzz
	$(RUN) -m experiments.robustness.fuzz_guided

clean:
	rm -rf $(VENV) .venv-* build demo node_modules *.egg-info
