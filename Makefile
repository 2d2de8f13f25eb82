# Everything runs in a virtual environment of its own; nothing here needs root.
# The tests need mosquitto and the SNMP tools, which are fetched from Debian where
# they are missing (with sudo, if you are not root).

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export PATH := $(PATH):/usr/sbin:/usr/local/sbin

.PHONY: demo test check sim fuzz chaos bench wheels schema packages clean help

help:
	@echo "make demo   five racks hold a cap over Modbus, SNMP and MQTT; the broker is killed"
	@echo "make test   fetch what the tests need, and run them"
	@echo "make check  style and types"
	@echo "make sim    more seeds of the simulation: SEEDS=1000 START=0 SECONDS_EACH=300 JOBS=1, or SEED=17"
	@echo "make fuzz   ten thousand hostile conversations with a controller: CASES=10000"
	@echo "make chaos  faults on real processes, the plant judges: MINUTES=10 SEED=1"
	@echo "make bench  what a controller costs; wire formats side by side"
	@echo "make wheels check that a Raspberry Pi compiles nothing"

demo: $(STAMP)-demo
	$(BIN)/wattbroker demo $(DEMO)

test: $(STAMP)-test packages
	$(BIN)/python -m pytest $(TESTS)

check: $(STAMP)-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

sim: $(STAMP)-test
	$(BIN)/python tests/simulation/simulate.py --seeds $(or $(SEEDS),1000) --start $(or $(START),0) \
	  --seconds $(or $(SECONDS_EACH),300) --jobs $(or $(JOBS),1) $(if $(SEED),--seed $(SEED))

bench: $(STAMP)-test packages
	$(BIN)/python benchmarks/controller.py
	$(BIN)/python benchmarks/wire.py
	$(BIN)/python benchmarks/devices.py

wheels: $(STAMP)-test
	$(BIN)/python deploy/check_wheels.py

schema: $(STAMP)-test
	$(BIN)/python -m firmware_py.site

packages:
	@deploy/packages.sh

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version 2>&1)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) 2>$(VENV).log || { rm -rf $(VENV); cat $(VENV).log >&2; \
	  rm -f $(VENV).log; echo "python3 -m venv does not work here: install the Debian package"; \
	  echo "python3-venv (sudo apt-get install python3-venv) and say 'make $(MAKECMDGOALS)' again"; \
	  exit 2; }
	@rm -f $(VENV).log

$(STAMP)-demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(STAMP)-test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $(STAMP)-demo $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
