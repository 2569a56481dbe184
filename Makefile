# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
KERNELS := $(shell find rating pipeline/metering pipeline/codec pipeline/rate -name '*.py')
PYTEST := $(BIN)/pytest --durations=15

# Where it is set, each of the many processes of a demo or a test compiles all that it imports anew: 3 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo lint test test-kafka test-faults test-faults-first test-faults-second test-long kafka bench bench-long flames clean

help: ## what can be made here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(COMPILED) ## make .venv with wattrate and everything it needs, kernels compiled

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "wattrate needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV) (once)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing wattrate and what it needs into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[embedded,dev]'
	@touch $@

# The compiled code lies beside the modules; workers only read it.
$(COMPILED): $(STAMP) $(KERNELS)
	@echo "compiling the kernels (a minute or two after a change, seconds where nothing changed)"
	@$(BIN)/python -m pipeline.rate.warm
	@touch $@

demo: setup ## a fleet's OCPP messages become rated rows, CDRs and alerts on this machine
	@$(BIN)/wattrate demo

lint: setup ## ruff, mypy, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup lint ## lint and every test that needs nothing but pip
	$(PYTEST) -m 'not kafka and not long and not faults'

test-kafka: setup ## the tests that need Apache Kafka (Java 17 and Maven; the jars are fetched once)
	@command -v java >/dev/null && command -v mvn >/dev/null || { echo "Apache Kafka needs Java 17 and Maven: apt-get install openjdk-17-jre-headless maven"; exit 1; }
	$(PYTEST) -m kafka

# They mostly wait (for time-outs, for processes that are killed): two halves side by side take half the time.
FIRST_FAULTS := tests/faults/test_[a-k]*.py
test-faults: setup ## kill -9, crash points, outages, rebalances, bad starts: each held against an undisturbed worker
	@command -v cc >/dev/null || { echo "crash points need a C compiler: apt-get install gcc libc6-dev"; exit 1; }
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-faults-first test-faults-second

test-faults-first:
	$(PYTEST) -m 'faults and not kafka and not long' $(FIRST_FAULTS)

test-faults-second:
	$(PYTEST) -m 'faults and not kafka and not long' tests/faults $(addprefix --ignore=,$(wildcard $(FIRST_FAULTS)))

test-long: setup ## minutes to hours: long tests, and 10 million sessions against the oracle
	$(PYTEST) -m long || test $$? -eq 5  # 5: none is marked
	$(BIN)/python -m tests.bulk --sessions 10000000 --seed 7

kafka: setup ## Apache Kafka, the embedded store, a worker and watch, in the foreground
	@$(BIN)/wattrate up --kafka

bench: setup ## the standard set of benchmarks (about 10 minutes on 2 cores) and the tables in README.md and docs
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[bench]'
	$(BIN)/python -m benchmarks.standard
	$(BIN)/python -m benchmarks.capacity
	$(BIN)/python -m benchmarks.report

bench-long: setup ## the standard set, a million connectors, 100 million rows and Apache Kafka (hours)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[bench]'
	$(BIN)/python -m benchmarks.standard --long
	$(BIN)/python -m benchmarks.capacity
	$(BIN)/python -m benchmarks.report

flames: setup ## flame graphs of a rating worker in docs/plots
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[bench]'
	for shape in flat ocpp201 arrow; do $(BIN)/python -m benchmarks.flames --shape $$shape || exit 1; done

clean: ## delete .venv and caches (never data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find rating pipeline -name '*.nb[ic]' -delete
