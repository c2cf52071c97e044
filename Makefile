# make run | test | check | bench | crash. Python 3.11 or newer is found by itself; PYTHON=... chooses another.

VENV := .venv
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test check bench crash

run: $(VENV)/installed
	exec $(BIN)/python arc.py

# What waits for servers shares the cores; what compares rates has them for itself.
test: $(VENV)/tested
	$(BIN)/python -m pytest -m 'not alone' -n 3 --dist loadfile
	$(BIN)/python -m pytest -m alone

check: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layout.py

bench: $(VENV)/tested
	$(BIN)/python -m bench.ingest
	$(BIN)/python -m bench.query
	$(BIN)/python -m bench.compaction
	$(BIN)/python -m bench.jobs
	$(BIN)/python -m bench.fleet
	$(BIN)/python -m bench.agent

crash: $(VENV)/tested
	ARC_CRASH_ROUNDS=100 ARC_ACTION_KILLS=50 ARC_JOBS_KILLS=30 ARC_FLEET_KILLS=20 ARC_VISIBILITY_PROBES=10000 \
		ARC_COMPACTION_SECONDS=120 ARC_COMPACTION_KILLS=20 \
		$(BIN)/python -m pytest tests/integration/test_visibility.py tests/integration/test_compaction.py \
		tests/integration/test_crash.py tests/integration/test_actions_crash.py tests/integration/test_jobs_crash.py \
		tests/integration/test_agent_crash.py

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Arc needs Python 3.11 or newer, with its venv module (Debian: python3-venv)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) -e '.[test]'
	touch $@
