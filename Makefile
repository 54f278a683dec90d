# Everything here needs `python3` (3.11, 3.12 or 3.13, with its venv module) and `make`, nothing more.
# Another interpreter: make test PYTHON=python3.12 (after `make clean`, if .venv was made with a different one).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
NOTEBOOKS_STAMP := $(VENV)/installed-notebooks
TPU_STAMP := $(VENV)/installed-tpu
# JAX compiles for most of a test's time, and one compilation keeps one core busy: two workers by default.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo demo-controls demo-seeds base notebooks test test-all lint clean

help:
	@echo "make demo           train an inserter with GRPO and write its report (runs/demo)"
	@echo "make demo-controls  add the controls to the demo's results"
	@echo "make demo-seeds     the demo and its controls with three seeds"
	@echo "make base           train the tiny base model that ships with the package"
	@echo "make notebooks      execute notebooks/*.ipynb and keep their outputs"
	@echo "make test           the tests, without the slow ones"
	@echo "make test-all       all tests"
	@echo "make lint           ruff"
	@echo "make clean          remove .venv and caches; runs/ stays"

demo: $(STAMP)
	@$(BIN)/python -m m2io_jax demo

demo-controls: $(STAMP)
	@$(BIN)/python -m m2io_jax demo controls

demo-seeds: $(STAMP)
	@$(BIN)/python -m m2io_jax demo seeds

base: $(STAMP)
	@$(BIN)/python -m m2io_jax base m2io_jax/models/base

notebooks: $(NOTEBOOKS_STAMP)
	@$(BIN)/python notebooks/execute.py

# Quick tests compile for longer than they run: XLA leaves most of its optimisations out. `make test-all` has them all.
test: $(STAMP)
	@JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow"

# The notebooks are executed too, and programs compiled for TPUs.
test-all: $(NOTEBOOKS_STAMP) $(TPU_STAMP)
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

lint: $(STAMP)
	@$(BIN)/ruff check .

# The stamp is written last, so that an installation that was interrupted is made again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing the pinned packages into $(VENV) (once; 1.4 GB, a few minutes)."
	@rm -f $(STAMP)
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		-c constraints.txt -e '.[dev]' || { \
		echo "The packages could not be installed (see above). Run the same command again to retry."; exit 1; }
	@touch $(STAMP)

$(NOTEBOOKS_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		-c constraints.txt -e '.[notebooks]'
	@touch $(NOTEBOOKS_STAMP)

# libtpu compiles without a TPU; where it has no wheel, the tests that need it say so and are skipped.
$(TPU_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		-c constraints.txt -e '.[tpu]' || echo "There is no libtpu here: nothing is compiled for TPUs."
	@touch $(TPU_STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
