# make demo and make test are all that a newcomer needs; both set up .venv first, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
RUN := .venv/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check
# A stamp bears the checksum of all that an installation depends on, so an unchanged one is never repeated.
STATE := $(shell { pwd; $(PYTHON) --version; cat pyproject.toml constraints.txt; } | cksum | tr ' ' -)
CORE := .venv/.core-$(STATE)
DEV := .venv/.dev-$(STATE)
# pip warns of wheel folders that one machine has and another has not; warnings that matter still come through.
QUIETLY := 2>&1 | sed '/^WARNING: Location .* is ignored/d'
# When an installation fails for reasons that pip keeps to itself: make setup PIP_FLAGS=
PIP_FLAGS ?= -q
INSTALL = $(PIP) install $(PIP_FLAGS) -c constraints.txt
CHROMIUM ?= /usr/bin/chromium
# Looks for what shuts people out of a page; MPL-2.0, used by the tests of the page only.
AXE := build/axe-core/axe.min.js
AXE_VERSION := 4.14.1
AXE_SHA256 := e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
BENCHMARKS := $(filter-out benchmarks/make_% benchmarks/common.py, $(wildcard benchmarks/*.py))

export PIP_NO_INPUT := 1

.PHONY: help demo setup check test follow cases soak page bench docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1  \2/p' $(MAKEFILE_LIST)

demo: $(CORE)  ## install, and see it work on photos that come with it (report: demo/report.html)
	$(RUN) mixtura demo

setup: $(DEV)  ## install everything that work on mixtura needs

check: $(DEV)  ## style, types and the direction of imports
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) pyright
	.venv/bin/lint-imports --no-cache

test: export OMP_NUM_THREADS := 1
test: $(DEV)  ## every test, and every example of the docs
	$(RUN) pytest -n 2 --dist loadfile

follow: export OMP_NUM_THREADS := 1
follow: $(DEV)  ## the how-to pages, done as they say on photos of the demo (PAGES="shop serve"): ends with PASS or FAIL
	.venv/bin/python tests/docs/follow.py $(PAGES)

cases: $(DEV)  ## what users of other tools reported: each case ends with PASS or FAIL
	@printf '%s\n' tests/cases/[a-z][0-9]*.py | xargs -P 2 -I{} bash -c \
		'saw=$$(.venv/bin/python {} 2>&1) && echo "PASS {}" || { echo "$$saw"; echo "FAIL {}"; exit 1; }'

SECONDS_OF_SOAK ?= 60
SEED ?= 0
soak: $(DEV)  ## clients, commands, refits, kills and a full disk at once (SEED=0): ends with PASS or FAIL
	.venv/bin/python tests/soak --seconds $(SECONDS_OF_SOAK) --seed $(SEED)

page: export OMP_NUM_THREADS := 1
page: export CHROMIUM := $(CHROMIUM)
page: $(DEV) $(AXE)  ## the web page in a browser; wants Chromium (CHROMIUM=...) and npm
	$(RUN) pytest tests/web_page/test_*.py

bench: $(DEV)  ## measure again what benchmarks/results holds; wants an idle machine
	@for script in $(BENCHMARKS); do echo "$$script"; .venv/bin/python "$$script"; done
	.venv/bin/python docs/make_reference.py

docs: $(DEV)  ## the web pages, into site/
	.venv/bin/python docs/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet

clean:  ## remove what make has made, but no data and no models
	rm -rf .venv site build .pytest_cache .ruff_cache .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

$(CORE): | .venv/bin/python
	@echo "Installing mixtura and PyTorch into .venv: a few minutes, about 1.5 GB of disk."
	@$(INSTALL) -e . $(QUIETLY) || { echo "The whole story: make setup PIP_FLAGS="; exit 1; }
	@rm -f .venv/.core-* .venv/.dev-* && touch $@

$(DEV): $(CORE)
	@echo "Installing the tools for tests, checks and docs."
	@$(INSTALL) -e '.[dev]' $(QUIETLY) || { echo "The whole story: make setup PIP_FLAGS="; exit 1; }
	@touch $@

$(AXE):
	@mkdir -p $(@D)
	cd $(@D) && npm pack --silent axe-core@$(AXE_VERSION)
	cd $(@D) && echo "$(AXE_SHA256)  axe-core-$(AXE_VERSION).tgz" | sha256sum --check --quiet
	tar -xzf $(@D)/axe-core-$(AXE_VERSION).tgz -C $(@D) --strip-components=1 package/axe.min.js package/LICENSE
	@touch $@
