# Everything here needs Python >= 3.11 and make; the rest is installed into .tools and .venv.
#
# Tools first: a small venv with one pinned uv. Then .venv, filled from the hash-pinned
# files in requirements/, and Anchorline itself on top, editable, without a resolver. All of it
# is compiled once: hundreds of short processes run from here, on some machines with
# PYTHONDONTWRITEBYTECODE, and each would compile everything that it imports.

PYTHON   ?= python3
TOOLS    := .tools
VENV     := .venv
BIN      := $(VENV)/bin
UV       := $(TOOLS)/bin/uv
ARGS     ?=

# The machine's own certificates and interpreter, and nobody's uv.toml.
export UV_SYSTEM_CERTS := 1
export UV_NO_CONFIG := 1
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE ?= copy
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := check
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- Set-up

$(TOOLS)/stamp: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=")'
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --require-hashes --requirement requirements/uv.txt
	@touch $@

$(VENV)/stamp: $(TOOLS)/stamp requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(TOOLS)/bin/python $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q agents pki protocol
	@touch $@

.PHONY: venv
venv: $(VENV)/stamp ## Make .venv from the hash-pinned requirements

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --custom-compile-command "make lock" $(ARGS)

.PHONY: lock
lock: $(TOOLS)/stamp ## Compile requirements/ again; ARGS=--upgrade for newer versions
	$(COMPILE) --extra server pyproject.toml --output-file requirements/run.txt
	$(COMPILE) --extra server --group dev --constraints requirements/run.txt pyproject.toml \
		--output-file requirements/dev.txt
	echo uv | $(COMPILE) - --output-file requirements/uv.txt

# --- Checks

.PHONY: check
check: format-check lint types floors requirements test-pure ## All checks and the pure tests; the default

.PHONY: format-check
format-check: venv ## Formatting
	$(BIN)/ruff format --check .

.PHONY: format
format: venv ## Format, and repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lint
lint: venv ## Lint
	$(BIN)/ruff check .

.PHONY: types
types: venv ## Types, the tests' included
	$(BIN)/mypy

.PHONY: floors
floors: venv ## Who may import whom
	$(BIN)/lint-imports --no-logo

.PHONY: requirements
requirements: venv ## docs/requirements.md against the tests
	$(BIN)/python -m tools.requirements

# --- Tests

PYTEST = $(BIN)/pytest --quiet $(ARGS)

.PHONY: test-pure
test-pure: venv ## Tests without sockets or processes
	$(PYTEST) -m "not sockets and not needs"

.PHONY: test-sockets
test-sockets: venv ## Tests with loopback sockets and processes
	$(PYTEST) -m "sockets and not needs"

.PHONY: test
test: test-pure test-sockets ## All tests that need Python and make only

.PHONY: test-deep
test-deep: venv ## Tests that need what deep-setup installs
	HYPOTHESIS_PROFILE=deep $(PYTEST) -m needs

APT := $(if $(filter 0,$(shell id -u)),,sudo )env DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: deep-setup
deep-setup: ## Install with apt what test-deep needs
	@command -v systemd-analyze >/dev/null && command -v strace >/dev/null || { \
		$(APT) update -q && $(APT) install -q -y --no-install-recommends systemd strace; }
	@systemd-analyze --version | head -n 1

.PHONY: bench-setup
bench-setup: ## Install with apt what bench compares with
	@command -v gcc >/dev/null && command -v cfssl >/dev/null && \
		test -e /usr/include/openssl/ssl.h || { $(APT) update -q && \
		$(APT) install -q -y --no-install-recommends gcc libc6-dev libssl-dev golang-cfssl; }

.PHONY: bench
bench: venv ## What things cost, side by side; ROWS="a b" for some, QUICK=1 for small ones
	@ROWS="$(ROWS)" QUICK="$(QUICK)" $(BIN)/python -m bench

.PHONY: simulate
simulate: venv ## Worlds in simulated time, one a seed: SEEDS=1000; SEED=17 replays one
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

.PHONY: coverage
coverage: venv ## Branch coverage of all tests that need Python and make only
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --quiet -m "not needs"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# --- The product

.PHONY: lab
lab: venv ## A whole deployment on this machine; ARGS="--clients 60"
	$(BIN)/anchorline lab $(ARGS)

.PHONY: clean
clean: ## Remove what make made
	rm -rf $(TOOLS) $(VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache \
		.pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
