# Needs Python 3.11 or newer, git and make; everything else goes into .venv.
PYTHON ?= python3
# Processes that `make test` shares the tests among; 0: none but one, for a machine that is slow or shared.
WORKERS ?= auto
# Not empty: `make test` says which lines and branches ran; a third slower, so .ci/run asks for it.
COVERAGE ?=
BIN := .venv/bin
STAMP := .venv/.installed
# Else every worker compiles every test for itself, each time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help check lint format test mutations entrypoint demo bench clean

help:
	@echo 'make demo    run a workflow, run it again, see it answered from the cache'
	@echo 'make check   lint, then the fast tests: what to run before each commit'
	@echo 'make test    lint, then every test that this machine can run'
	@echo 'make mutations   break the product where harm is greatest, and see that a test notices'
	@echo 'make lint    ruff, mypy and the rules of who imports whom'
	@echo 'make bench   measure what it costs, into bench/RESULTS.md'
	@echo 'make entrypoint  build the static binary for x86-64 and arm64'
	@echo 'make clean   remove what was built, .venv included'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.13 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check . tools/control-plane tools/helm tools/mutations tools/promtool
	$(BIN)/ruff format --check . tools/control-plane tools/helm tools/mutations tools/promtool
	$(BIN)/mypy
	MYPYPATH=tools $(BIN)/mypy tools/control-plane
	$(BIN)/mypy tools/mutations
	MYPYPATH=tools $(BIN)/mypy tools/promtool
	MYPYPATH=tools $(BIN)/mypy tools/helm
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix . tools/control-plane tools/helm tools/mutations tools/promtool
	$(BIN)/ruff format . tools/control-plane tools/helm tools/mutations tools/promtool

entrypoint: $(STAMP)
	$(BIN)/python -m sidecar.entrypoint.build

check: lint
	$(BIN)/pytest -m 'not slow' -n logical --dist worksteal --hypothesis-profile=quick

test: lint entrypoint
ifeq ($(COVERAGE),)
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup
else
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadgroup
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
endif

mutations: $(STAMP)
	$(BIN)/python tools/mutations

demo: $(STAMP)
	@$(BIN)/python -m devcluster demo

bench: entrypoint
	$(BIN)/python -m bench

clean:
	rm -rf .venv build .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
