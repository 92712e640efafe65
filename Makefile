# `make` alone lists the targets. Everything runs in .venv, which is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow test-extras lint format docs results gallery rectified compare sampling tables-bench adjoint-memory replicas terminal bench structure tensorboard clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 17

install: $(VENV)/.installed ## Create .venv and install flowtrain with its development tools

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flowtrain needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	@echo "Installing PyTorch and the rest into $(VENV): some minutes, this once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: install ## Train a first flow, in about a minute; give options with ARGS="data=circles seed=1"
	$(BIN)/flowtrain model=ffjord objective=flow_matching_then_likelihood data=moons \
	  trainer.max_steps=6_000 trainer.evaluate_every=2_000 trainer.draw_every=3 $(ARGS)

test: install ## Run the tests (six to fourteen minutes on two cores)
	$(BIN)/python -m pytest -n auto

test-extras: ## Run the tests of loggers, exports, searches and other libraries' flows in an environment of their own, .venv-extras
	$(PYTHON) -m venv $(VENV)-extras
	$(VENV)-extras/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,export,wandb,mlflow,joblib,optim,optuna,zoo]' pandas polars
	$(VENV)-extras/bin/python -m pytest -n auto -m '' tests/training/test_loggers.py tests/data/test_frame.py \
	  tests/runs/test_weights.py tests/runs/test_graph.py tests/cli/test_export.py \
	  tests/sweeps tests/cli/test_search.py tests/faults/test_sweeps.py \
	  tests/flows/test_from_zuko.py tests/flows/test_from_normflows.py tests/training/test_soap.py
	$(VENV)-extras/bin/python -m pytest -n auto -k 'zuko or normflows or soap' tests/flows/test_flow.py \
	  tests/training/test_trainer.py tests/training/test_resume.py tests/test_build.py tests/test_docstrings.py tests/config

.PHONY: test-slurm
test-slurm: ## Run sweeps on a Slurm of one node, from Debian's packages, as root (seven minutes)
	$(PYTHON) -m venv $(VENV)-extras
	$(VENV)-extras/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,slurm,optuna]'
	$(VENV)-extras/bin/python -m pytest -m slow tests/cli/test_slurm.py

test-slow: install ## Run the long checks: whole trainings held to their figures
	$(BIN)/python -m pytest -m slow

.PHONY: test-faults
test-faults: install ## Kill runs, fill disks, fuzz configs; FAULTS_CASES=100 for more (forty minutes)
	$(BIN)/python -m pytest -m faults

.PHONY: test-soak
test-soak: install ## Train 200,000 steps of RealNVP and 2,000 of FFJORD: memory, handles, files (ten minutes)
	$(BIN)/python -m pytest -m soak

lint: install ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: lock audit licences
TOOLS := $(VENV)-tools
$(TOOLS)/.installed: constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt uv pip-audit pip-licenses
	@touch $@

lock: export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
lock: $(TOOLS)/.installed ## Pin with hashes all that CI installs, in .ci/requirements.txt
	$(TOOLS)/bin/uv pip compile --quiet --generate-hashes --no-annotate --extra dev --extra docs \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint constraints.txt \
	  --custom-compile-command 'make lock' --output-file .ci/requirements.txt \
	  pyproject.toml .ci/requirements.in

audit: $(TOOLS)/.installed ## Look up all that CI installs in PyPI's database of vulnerabilities
	$(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip --requirement .ci/requirements.txt

licences: $(TOOLS)/.installed install ## List the licences of all that is in .venv
	$(TOOLS)/bin/pip-licenses --python $(BIN)/python --order license

format: install ## Mend style in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## Build the site of docs/ in site/, its notebooks executed (three minutes)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

results: install ## Train every row of docs/results.md that is missing (three hours), rewrite the tables
	$(BIN)/python benchmarks/results.py

gallery: install ## Train what docs/gallery.png shows and is missing (an hour), and draw it
	$(BIN)/python benchmarks/results.py gallery

rectified: install ## Train what docs/rectified.md shows and is missing (an hour and a half), rewrite its table and picture
	$(BIN)/python benchmarks/rectified.py $(ARGS)

compare: install ## Train RealNVP and FFJORD on three data sets and print a table
	$(BIN)/python benchmarks/compare.py

sampling: install ## Time sampling beside zuko and normflows
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/sampling.py

tables-bench: install ## Held-out NLL of tables with the defaults, beside zuko's; see benchmarks/tables.py for ARGS
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/tables.py $(ARGS)

adjoint-memory: install ## Print docs/results.md's table of memory against evaluations
	$(BIN)/python benchmarks/adjoint_memory.py

replicas: install ## Print docs/scaling.md's table: a step of several replicas beside single ones
	$(BIN)/python benchmarks/replicas.py $(ARGS)

terminal: install ## Record the README's moving picture of a terminal (two minutes)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python benchmarks/terminal.py

bench: install ## Train and time beside six libraries; write docs/benchmarks.md (45 minutes)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.bench $(ARGS)

structure: install ## Print the package in numbers: files, imports, places to touch
	$(BIN)/python benchmarks/structure.py $(ARGS)

tensorboard: install ## Open the curves and figures of all runs
	$(BIN)/tensorboard --logdir outputs

clean: ## Remove .venv and caches; run folders stay
	rm -rf $(VENV) $(VENV)-extras $(TOOLS) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
