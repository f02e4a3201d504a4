# Needs Python 3.11 or newer, git and make; everything else goes into .venv.
PYTHON ?= python3
# Processes that `make test` shares the tests among; 0: none but one, for a machine that is slow or shared.
WORKERS ?= auto
# Not empty: `make test` says how much of each file ran; a third slower, so .ci/run asks for it.
COVERAGE ?=
# What `make hurried` runs: the rooms whose tests start few processes, on a clock that runs so many times as fast.
HURRIED := $(addprefix tests/,certs keeper kube memoize server webhook)
HURRY ?= 5
BIN := .venv/bin
STAMP := .venv/.installed
# Else every worker compiles every test for itself, each time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help check lint format test hurried mutations entrypoint demo bench lock sbom clean

help:
	@echo 'make demo    run a workflow, run it again, see it answered from the cache'
	@echo 'make check   lint, then the fast tests: what to run before each commit'
	@echo 'make test    lint, then every test that this machine can run'
	@echo 'make hurried     find tests that a slower machine would fail, by a clock that runs five times as fast'
	@echo 'make mutations   break the product where harm is greatest, and see that a test notices'
	@echo 'make lint    ruff, mypy and the rules of who imports whom'
	@echo 'make bench   measure what it costs, into bench/RESULTS.md'
	@echo 'make lock    pin what the image installs, with hashes: the newest that pyproject.toml allows'
	@echo 'make sbom    list what the image installs, into build/sbom.cdx.json (CycloneDX)'
	@echo 'make entrypoint  build the static binary for x86-64 and arm64'
	@echo 'make clean   remove what was built, .venv included'

$(STAMP): pyproject.toml memoize/__init__.py
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
	$(BIN)/pytest -m 'not slow' -n auto --dist loadgroup --hypothesis-profile=quick

test: lint entrypoint
ifeq ($(COVERAGE),)
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup
else
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadgroup
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
endif

hurried: entrypoint
	HURRY=$(HURRY) PYTHONPATH=. $(BIN)/pytest -p tests.hurried -n $(WORKERS) --dist loadgroup $(HURRIED)

mutations: $(STAMP)
	$(BIN)/python tools/mutations

demo: $(STAMP)
	@$(BIN)/python -m devcluster demo

bench: entrypoint
	$(BIN)/python -m bench

# Of every file of a release, so of every architecture and Python that a base may have. Zig has a file of its own, since it
# is no part of the image. uv reads no pip.conf: where pip is told of another index, tell uv by UV_DEFAULT_INDEX.
LOCK := $(BIN)/uv --quiet pip compile --universal --python-version 3.11 --upgrade --generate-hashes \
  --no-strip-extras --no-header --no-annotate

lock: $(STAMP)
	$(LOCK) pyproject.toml --extra verify --output-file requirements/programs.txt
	sed -n 's/^ *"\(ziglang.*\)",$$/\1/p' pyproject.toml | $(LOCK) - --output-file requirements/entrypoint.txt

# Of an environment that holds the locked packages and nothing else, so it is a trial of the hashes as well.
sbom: $(STAMP)
	rm -rf build/programs
	$(PYTHON) -m venv --without-pip build/programs
	$(BIN)/pip --python build/programs --quiet --disable-pip-version-check install --no-compile \
	  --require-hashes --only-binary :all: --requirement requirements/programs.txt
	sed "s/^dynamic = .*/version = \"$$($(BIN)/python -m cli --version | cut -d' ' -f2)\"/" pyproject.toml >build/pyproject.toml
	$(BIN)/cyclonedx-py environment build/programs --pyproject build/pyproject.toml --mc-type application \
	  --output-reproducible --output-format JSON --output-file build/sbom.cdx.json

clean:
	rm -rf .venv build .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
