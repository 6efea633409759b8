# Two commands matter: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: setup demo test test-fast chaos draws fuzz lint audit bench schema clean

setup: .venv/complete

# The environment is cached outside the checkout; see quantpress/toolchain/environment.py.
.venv/complete: pyproject.toml constraints.txt $(wildcard quantpress/toolchain/*.txt) quantpress/toolchain/environment.py
	$(PYTHON) -m quantpress.toolchain.environment
	touch $@

demo: setup
	$(RUN) -m quantpress.cli.demo

test: setup
	$(RUN) -m quantpress toolchain install llama.cpp
	$(RUN) -m quantpress toolchain install archived-libraries
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

# For the inner loop: decisions, texts and formulas, without tools, models and Hubs.
test-fast: setup
	$(RUN) -m pytest -n 2 --fast

# Kills a press 50 times, and now and then the Hub; see docs/chaos.md.
chaos: setup
	$(RUN) -m quantpress toolchain install llama.cpp
	$(RUN) -m pytest -s -m chaos tests/faults

# Property tests on new draws; what they find becomes an example of the test.
draws: setup
	HYPOTHESIS_PROFILE=new $(RUN) -m pytest -n 2 -m hypothesis

# What reads foreign data, on 2,000 new draws of each test.
fuzz: setup
	HYPOTHESIS_PROFILE=fuzz $(RUN) -m pytest -n 2 -m foreign

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	.venv/bin/lint-imports

# Are vulnerabilities known in what is pinned? Exits with 1 if there are, and with 2 if the service cannot be asked.
audit: setup
	$(RUN) -m quantpress.toolchain.audit

bench: setup
	$(RUN) -m benchmarks.ladder

schema: setup
	$(RUN) -m quantpress schema

clean:
	rm -rf .venv .quantpress
