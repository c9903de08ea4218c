# Everything sets itself up in .venv; PYTHON names the interpreter to make it with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test coverage lint docs bench interop fuzz clean

run: $(VENV)/ready
	$(BIN)/python -m moxtls.cli.main lab run $(ARGS)

# Two processes for two cores.  Not trial's own -j: some tests fork, and its
# workers don't survive that.  ONE is half of the work; the rest is whatever
# else there is, so that nothing is forgotten.
TRIAL = $(BIN)/python -m twisted.trial --temp-directory
ONE = tests.scenarios tests.ledger tests.lab tests.test_tap
REST = $(filter-out $(ONE),$(sort \
	$(patsubst tests/%/__init__.py,tests.%,$(wildcard tests/*/__init__.py)) \
	$(patsubst tests/%.py,tests.%,$(wildcard tests/test_*.py))))

test: $(VENV)/ready-test
ifdef TESTS
	$(TRIAL) _trial_temp $(TESTS)
else
	@$(TRIAL) _trial_temp_one $(ONE) > _test.log 2>&1 & one=$$!; \
	$(TRIAL) _trial_temp $(REST); rest=$$?; \
	wait $$one; one=$$?; cat _test.log; \
	echo "exit status of the two halves: $$one $$rest"; \
	exit $$((one + rest))
endif

# The lines and branches that the tests run, without those of other processes that
# they start.  The figure is said in CONTRIBUTING.rst.
COVERED = $(BIN)/coverage run --parallel-mode -m twisted.trial --temp-directory
MIN_COVERAGE = $(shell sed -n 's/.* at least \([0-9]*\) % of lines.*/\1/p' CONTRIBUTING.rst)

coverage: $(VENV)/ready-dev
	$(BIN)/coverage erase
	@$(COVERED) _trial_temp_one $(ONE) > _test.log 2>&1 & one=$$!; \
	$(COVERED) _trial_temp $(REST); rest=$$?; \
	wait $$one; one=$$?; cat _test.log; exit $$((one + rest))
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under $(MIN_COVERAGE)

lint: $(VENV)/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy moxtls tests bench interop fuzz

# The pages of docs/, and below api/ the public names of the package.
DOCS = docs/build

docs: $(VENV)/ready-docs
	rm -rf $(DOCS)
	$(BIN)/sphinx-build -C -q -W --keep-going -d $(DOCS)/doctrees \
		-D project=moxtls -D exclude_patterns=build -D html_show_copyright=0 \
		-D html_copy_source=0 docs $(DOCS)
	$(BIN)/pydoctor --quiet --warnings-as-errors --html-output $(DOCS)/api moxtls

bench: $(VENV)/ready-bench
	$(BIN)/python -m bench $(ARGS)

interop: $(VENV)/ready
	interop/run

# What strangers send, made up for 20 seconds a parser; ARGS="--seconds 600 server".
fuzz: $(VENV)/ready-fuzz
	$(BIN)/python -m fuzz $(ARGS)

# "compat" keeps twisted/plugins importable from the checkout, so that
# `twistd moxtls` is there without installing a wheel.
EDITABLE = $(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: setup.cfg pyproject.toml | $(BIN)/python
	$(EDITABLE) ".[lab,postgres]"
	touch $@

$(VENV)/ready-test: $(VENV)/ready
	$(EDITABLE) ".[test]"
	touch $@

$(VENV)/ready-bench: $(VENV)/ready-test
	$(EDITABLE) ".[bench]"
	touch $@

$(VENV)/ready-fuzz: $(VENV)/ready-test
	$(EDITABLE) ".[fuzz]"
	touch $@

$(VENV)/ready-dev: $(VENV)/ready-test
	$(EDITABLE) ".[dev]"
	touch $@

$(VENV)/ready-docs: $(VENV)/ready
	$(EDITABLE) ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .venv-interop .venv-newest .coverage* _trial_temp* _test.log fuzz-found-* moxtls-lab build docs/build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
