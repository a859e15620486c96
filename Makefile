# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRESET ?= CartPole_PPO
WORKLOADS ?= W1 W2 W3 W4 W5
export OMP_NUM_THREADS ?= 1

.PHONY: train test stress learn lint bench wheel clean help

help: ## Show this list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/coach: pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt torch
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(BIN)/coach ## Train a preset until its target is met, and show the result (PRESET=CartPole_PPO).
	$(BIN)/coach train $(PRESET) --stop-at-target
	@echo 'coach and tensorboard are in $(BIN); to have them at hand: source $(BIN)/activate'

test: $(BIN)/coach ## Run the test suite.
	$(BIN)/python -m pytest -n 2

stress: $(BIN)/coach ## Run the suite beside eight busy processes.
	$(BIN)/python tests/busy.py 8 $(BIN)/python -m pytest -n 2

learn: $(BIN)/coach ## Train every preset of up to a million steps to its target; takes hours.
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev,mujoco,box2d,minatar]'
	$(BIN)/python -m pytest -m learning -n 2 tests/learning

lint: $(BIN)/coach wheel ## Check style, and types against the installed wheel.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/wheel/check_types.py dist/*.whl

wheel: $(BIN)/coach ## Build a wheel into dist/.
	@rm -rf dist build
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . > /dev/null
	@ls dist

bench: $(BIN)/coach ## Compare the speed with other frameworks (WORKLOADS="W1 W2 W3 W4 W5").
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/run.py $(WORKLOADS)
	$(BIN)/python benchmarks/replay.py

clean: ## Remove what was built and installed; runs stay.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
