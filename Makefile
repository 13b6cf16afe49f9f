# `make demo` and `make test` are all that a newcomer needs; each sets up what it wants first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PART ?= all

.PHONY: setup demo test chaos check bench clean test-packages

setup: $(READY)

# uv where it is there, else pip. The stamp is made last, so that a broken set-up is set up again.
$(READY): pyproject.toml
	@echo "Setting up $(VENV): a minute or two, about 1 GB."
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python '>=3.11' $(VENV) && uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Coldchain needs Python 3.11 or newer; name one with PYTHON=…")' && \
	  $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@

demo: setup
	$(BIN)/coldchain demo

# As root on Debian the packages that tests of real components need are installed; elsewhere those tests skip and name them.
test-packages:
	@./tests/install-packages

# Many tests wait for a process that they start, so more of them run at a time than there are cores. Each of those
# processes would compile all modules anew where an environment forbids to keep what was compiled. All cores being
# taken, threads of the linear algebra would only wait for each other, and spin meanwhile.
TEST_PROCESSES ?= $(shell expr $$(nproc 2>/dev/null || echo 2) \* 3 / 2)
test: setup test-packages
	PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

# What is killed at random, for minutes; the short versions are in `make test`.
chaos: setup test-packages
	$(BIN)/python -m pytest -m chaos

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks $(PART)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
