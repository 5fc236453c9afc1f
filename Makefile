# A fresh machine needs Python 3.11, make and a package index; everything else lands in $(VENV).

VENV   ?= .venv
PYTHON ?= $(firstword $(shell command -v python3.11 python3))
TORCH  ?= torch==2.14.1 torchvision==0.29.1
PYTEST ?= -n 2 --dist worksteal
BENCH  ?=
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install quickstart test fast lint format docs bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.dev ## create the virtual environment with everything a developer needs

quickstart: $(VENV)/.quickstart ## fine-tune a real network on real images, in minutes, on a laptop
	$(BIN)/visionpeft run recipes/classify/quickstart.yaml

# One thread a test worker: two workers with two threads each would fight over two cores.
test fast: export OMP_NUM_THREADS ?= 1

test: $(VENV)/.dev ## run every test
	$(BIN)/pytest $(PYTEST)

fast: $(VENV)/.dev ## run the tests that are not marked slow
	$(BIN)/pytest $(PYTEST) -m "not slow"

lint: $(VENV)/.dev ## check style, formatting, types and the images
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/hadolint docker/Dockerfile.*

format: $(VENV)/.dev ## mend style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev ## renew the tables of the README from the code
	$(BIN)/python -P tests/generate_docs.py

bench: $(VENV)/.dev ## time every method against full fine-tuning, HF PEFT and LyCORIS
	$(BIN)/visionpeft bench $(BENCH)

clean: ## remove the virtual environment and all caches (run folders stay)
	rm -rf $(VENV) dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone, so that TORCH can choose another build; a stamp is as old as what it stands for.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(TORCH)
	@touch $@

$(VENV)/.quickstart: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -e '.[quickstart]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -e '.[dev,quickstart]'
	@touch $@
