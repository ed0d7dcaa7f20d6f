# Everything here needs Python >= 3.11 and make; the rest is installed into .tools and .venv.
#
# Tools first: a small venv with one pinned uv. Then .venv, filled from the hash-pinned
# files in requirements/, and Anchorline itself on top, editable, without a resolver.

PYTHON   ?= python3
PACKAGES := agents protocol pki tests tools
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
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
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
