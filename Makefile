# Every command of the project's daily life; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Quotes keep what a user set; nothing below names a machine or a package index.
python := .venv/bin/python
pytest := $(python) -m pytest
tests  ?=
benchmarks ?=
only ?=
architectures ?=
options ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up: each step is idempotent and quick when there is nothing to do ------------------------

.PHONY: setup venv guest-agent
setup: ## Install everything that lns, its demo and its tests need
	@scripts/setup/apt run demo test foreign
	@scripts/setup/venv
	@scripts/setup/guest-agent
	@scripts/setup/kernel
	@scripts/setup/foreign
	@scripts/setup/docker
	@scripts/setup/registry-image
	@scripts/setup/rootfs

venv:
	@scripts/setup/venv

guest-agent: ## Build the guest agent, pid 1 of the microVMs, and the launcher of VMMs
	@scripts/setup/apt run
	@scripts/setup/guest-agent

# --- use ------------------------------------------------------------------------------------------

.PHONY: demo demo-clean
demo: setup ## Publish an agent bundle to a local registry and run it in a microVM
	@demo/run

demo-clean: ## Remove the demo's registry and stop the services that it started
	@demo/clean

# --- tests ----------------------------------------------------------------------------------------

.PHONY: test check all-tests failed-tests unit contract behaviour integration e2e
test: setup check all-tests ## Run every check and every test; set everything up first

all-tests: setup
	@scripts/setup/programs
	scripts/all-tests

# Those that the last run left behind, and only those; none is a failure, too.
failed-tests:
	scripts/all-tests again

check: venv ## Check format, style, types, imports, protos and scripts
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/mypy examples
	.venv/bin/lint-imports
	.venv/bin/buf lint
	.venv/bin/buf format --diff --exit-code
	$(python) protos/generate.py --check
	shellcheck .ci/run demo/run demo/clean scripts/all-tests scripts/images scripts/lock scripts/release scripts/setup/*

unit: venv ## Run the unit, proto and architecture tests
	$(pytest) tests/unit tests/protos tests/architecture $(tests)

contract: venv ## Run the contract suites of the ports
	$(pytest) tests/contract $(tests)

behaviour: venv ## Run the services' behaviour tests
	$(pytest) tests/behaviour $(tests)

integration: venv ## Run the tests against real registries and tools
	@scripts/setup/apt run test
	@scripts/setup/docker
	@scripts/setup/registry-image
	$(pytest) tests/integration $(tests)

e2e: setup ## Run the tests that boot microVMs
	@scripts/setup/programs
	LNS_REQUIRE=registry,qemu $(pytest) tests/e2e $(tests)

.PHONY: coverage mutants
coverage: venv guest-agent ## Measure what quick tests run, by package, against floors (options=--raise)
	$(python) -m tests.coverage $(options)

mutants: venv guest-agent ## See whether quick tests notice harmful changes, one at a time (only="egress core")
	$(python) -m tests.mutants $(only)

# --- development ----------------------------------------------------------------------------------

.PHONY: gen lock bench release clean
gen: venv ## Generate the code of the protos, tables of the documents, manual pages
	$(python) protos/generate.py
	$(python) docs/generate.py
	$(python) docs/generate_cli.py

lock: venv ## Pin the dependencies of pyproject.toml anew
	scripts/lock

bench: setup ## Measure against the alternatives a user has (benchmarks="transfers boots")
	@scripts/setup/apt bench
	$(python) -m tests.benchmarks $(benchmarks)

release: setup ## Build source archive and wheels, twice, compare and try them (architectures="x86_64 aarch64")
	@scripts/release $(architectures)

clean: ## Remove what was built here (not the caches below ~/.cache/lns)
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf services/vm_runner/confine/build services/vm_runner/guest/build
