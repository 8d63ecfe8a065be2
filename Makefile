# The two commands for a newcomer are `make demo` and `make test`; each installs what it needs and can be run again.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help demo test check bench soak setup clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo    install what is needed, start a cluster, run the lesson's example, print its URL and answer
demo: setup
	@scripts/demo

## make test    install what is needed, run all tests (root is needed for most of them)
test: setup
	@scripts/test

## make check   lint, types and import contracts, in seconds
check: setup
	@scripts/check

## make bench   the figures of docs/performance.md, measured on this machine
bench: setup
	@scripts/bench

## make soak    kill storms and fuzzing until stopped (SECONDS_EACH=600 by default)
soak: setup
	@scripts/soak

setup:
	@scripts/setup

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
