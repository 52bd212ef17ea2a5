# demo and test do their own set-up; check needs what test installs.
.PHONY: demo test check setup clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv is quicker where it is installed.
UV := $(shell command -v uv 2>/dev/null)

demo: $(VENV)/installed
	$(BIN)/deploy +board=sim

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --no-tips --violations -t=3.6- toolkit/onboard
	$(BIN)/vermin --quiet --no-tips --violations -t=3.7- toolkit/sim/cann

$(VENV)/bin/python:
ifdef UV
	$(UV) venv --quiet --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
ifdef UV
	$(UV) pip install --quiet --python $(BIN)/python -e .
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
endif
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml
ifdef UV
	$(UV) pip install --quiet --python $(BIN)/python -e '.[dev]'
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
endif
	touch $@ $(VENV)/installed

setup: $(VENV)/installed-dev

clean:
	rm -rf $(VENV) .venvs .deploy runs build *.egg-info
