# Every target sets up what it needs; PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-all lint docs wheel benchmark clean

help:
	@echo "make demo       8 projections of a particle to a volume, four ways, with a table and a figure"
	@echo "make test       the tests, some minutes on 2 cores"
	@echo "make test-all   the slow ones too"
	@echo "make lint       ruff and mypy"
	@echo "make docs       docs/reference.md, from the declarations"
	@echo "make wheel      wheel and source distribution in dist/, checked"
	@echo "make benchmark  the figures of docs/performance.md, measured here"

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

# Exact versions from constraints.txt; a stamp is renewed when what is to be installed changes. The demo needs no extra.
$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/.installed: $(VENV)/.base
	$(INSTALL) torch
	$(INSTALL) -e '.[all,test,dev]'
	touch $@

# Two processes whatever the machine, since some tests measure memory. loadgroup keeps tests that share a costly fixture
# in one of them. Without these options pytest runs everything in order, as a debugger needs it.
PARALLEL := -n 2 --dist loadgroup

demo: $(VENV)/.base
	$(BIN)/python pipelines/demo/quickstart.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(PARALLEL)

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(PARALLEL) -m 'not gpu'

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m slow tests/test_types.py
	$(BIN)/python docs/make_reference.py --check

docs: $(VENV)/.installed
	$(BIN)/python docs/make_reference.py

wheel: $(VENV)/.base
	$(INSTALL) build twine
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

benchmark: $(VENV)/.installed
	$(BIN)/python pipelines/benchmark.py

clean:
	rm -rf $(VENV) build dist *.egg-info
