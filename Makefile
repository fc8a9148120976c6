# `make` shows what there is. Every target sets up what it needs; setting up is quick when all is there.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run up down status test test-kubernetes e2e unit check format protos crds lock chaos bench clean

python := .venv/bin/python
pytest := $(python) -m pytest
millrace := .venv/bin/millrace
compile := .venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
           --custom-compile-command "make lock" $(UPGRADE)

# Tests of whole programs cancel clients in the middle of connecting, and aiohttp and httpx end TLS connections without waiting for
# the peer: a socket is left to the collector now and then.
lenient := -W ignore:unclosed:ResourceWarning
# One tier after the other, so that the quick ones speak first and the whole stack never runs beside them.
tiers := "tests/architecture tests/unit tests/property" "tests/contract tests/component" "tests/system"
images := gateway ratelimiter cache router dispatcher worker operator client cli

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}'

setup: ## bring everything: Debian packages (as root), .venv, Kafka, Triton
	@deploy/local/setup

run: setup ## start everything in the foreground and print the page's URL; Ctrl-C stops
	@$(millrace) up

up: setup ## the same, in the background
	@$(millrace) up --detach

down: ## stop it
	@$(millrace) down

status: ## what runs
	@$(millrace) status

test: setup ## all tests, up to real browsers on the real stack
	@failed=0; for tier in $(tiers); do \
	  paths=$$(ls -d $$tier 2>/dev/null); [ -z "$$paths" ] && continue; \
	  case $$tier in *system*) bear="$(lenient)";; *) bear=;; esac; \
	  echo "== $$paths"; $(pytest) $$paths $$bear $(ARGS) || failed=1; \
	done; exit $$failed

test-kubernetes: setup ## tests against a real Kubernetes API server (needs Go; builds etcd, API server, kubectl and helm once, 11 min; SKAFFOLD=1: and skaffold, 7 min)
	@deploy/cluster/cluster build control helm $(if $(SKAFFOLD),skaffold)
	@$(pytest) tests/kubernetes $(lenient) $(ARGS)

e2e: setup ## helm, kubectl and load on a real cluster: SCENARIO="install scale" for some, KUBECONFIG=... for yours
	@deploy/cluster/cluster build control node helm
	@$(pytest) tests/e2e -p no:randomly $(lenient) -s $(ARGS)

unit: setup ## only the quick tests: architecture, unit, property
	@$(pytest) tests/architecture tests/unit tests/property $(ARGS)

check: setup ## style, types, import contracts, generated code
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(python) protos/generate.py --check
	$(python) -m millrace_operator.crds --check
	$(pytest) -q tests/architecture

format: ## put the code into its form
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

crds: ## generate the custom resource definitions of the chart
	$(python) -m millrace_operator.crds

protos: ## generate protos/gen
	$(python) protos/generate.py

lock: ## resolve the Python packages again (UPGRADE=--upgrade for newer ones)
	$(compile) pyproject.toml --all-extras --group dev -o requirements/all.lock
	for image in $(images); do $(compile) pyproject.toml --extra $$image -c requirements/all.lock -o requirements/$$image.lock; done
	$(compile) --no-deps requirements/triton.in -o requirements/triton.lock
	sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements/uv.txt | $(compile) - -o requirements/uv.txt

chaos: setup ## kill, pause, slow, cut and duplicate by seed: make chaos TASKS=2000 SEED=1
	$(python) -m tests.chaos $(if $(TASKS),--tasks $(TASKS)) $(if $(SEED),--seed $(SEED))

bench: setup ## measure: make bench lists them, make bench NAME=ack runs one
	$(python) -m tests.bench $(NAME)

clean: ## remove what was built here (.venv, caches); data and downloads stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
