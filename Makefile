# Everything sets itself up in .venv; PYTHON names the interpreter to make it with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint bench interop clean

run: $(VENV)/ready
	$(BIN)/python -m moxtls.cli.main lab run $(ARGS)

test: $(VENV)/ready-test
	$(BIN)/python -m twisted.trial $(or $(TESTS),tests)

lint: $(VENV)/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy moxtls tests bench interop

bench: $(VENV)/ready-test
	$(BIN)/python -m bench $(ARGS)

interop: $(VENV)/ready
	interop/run

# "compat" keeps twisted/plugins importable from the checkout, so that
# `twistd moxtls` is there without installing a wheel.
EDITABLE = $(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: setup.cfg pyproject.toml | $(BIN)/python
	$(EDITABLE) ".[postgres]"
	touch $@

$(VENV)/ready-test: $(VENV)/ready
	$(EDITABLE) ".[test]"
	touch $@

$(VENV)/ready-dev: $(VENV)/ready-test
	$(EDITABLE) ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .venv-interop _trial_temp* moxtls-lab build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
