# Every target makes what it needs: on a fresh clone, `make serve` or `make test` is the first command.
# VENV and PYTHON can be set: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
ARTIFACTS := $(or $(LANTERN_MODELS_DIR),models/artifacts)

.DEFAULT_GOAL := help
.PHONY: help setup data train serve test check audit soak bench bench-all format lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.ready: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Lantern needs Python 3.11 to 3.13: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(abspath $(VENV)) UV_COMPILE_BYTECODE=1 $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	@touch $@

setup: $(VENV)/.ready ## Make .venv with the locked dependencies

data: setup ## Fetch Fashion-MNIST, without root
	@$(BIN)/python -m training.datasets.fashion_mnist

train: data ## Train, evaluate and publish the starter model
	$(BIN)/python -m training

serve: setup ## Serve on 127.0.0.1:8000, training the starter model first if none is published
	@ls "$(ARTIFACTS)"/*/CURRENT >/dev/null 2>&1 || $(MAKE) --no-print-directory train
	$(BIN)/python -m app

test: data ## Run every test, with coverage
	$(BIN)/python -m coverage erase
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

check: setup ## Lint, format, types, import rules, no secrets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@# Long hexadecimal numbers are sha256 sums here.
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --disable-plugin HexHighEntropyString

audit: setup ## Look for known vulnerabilities in the locked dependencies; asks the advisory service of PyPI
	@for each in app training dev; do echo "requirements/$$each.txt"; \
	  $(BIN)/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r requirements/$$each.txt || exit 1; done

soak: setup ## The fault tests, long: nearly two hours; writes the figures of docs/reliability.md
	LANTERN_FAULTS=long $(BIN)/python -m pytest --no-cov tests/faults

bench: setup ## Lantern beside plain FastAPI, LitServe and the machine's limits; under ten minutes
	$(BIN)/python -m benchmarks --quick

bench-all: setup ## Every server and every workload
	$(BIN)/python -m benchmarks

format: setup ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup ## Write requirements/*.txt anew, with exact versions and hashes
	$(call compile,dev,--extra dev)
	$(call compile,training,--extra training -c requirements/dev.txt)
	$(call compile,app,--extra openvino -c requirements/dev.txt)

compile = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' \
	  pyproject.toml $(2) --output-file requirements/$(1).txt

clean: ## Remove .venv and the caches; data and models stay
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
