# Everything sets itself up: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; make PYTHON=python3.12 ..."; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	rm -rf demo
	$(RUN) -m experiments.demo --out=demo

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

test: lint
	$(RUN) -m pytest --numprocesses=auto --dist=worksteal

clean:
	rm -rf $(VENV) build demo *.egg-info
