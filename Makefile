# Needs Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-kafka test-browser soak fuzz check format lock clean bench-setup bench-compare bench-lock \
	bench bench-worker bench-latency bench-growth bench-preferences bench-steady bench-capacity bench-figures bench-reading

help:            ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: .venv/.ready   ## make .venv and install the locked packages into it

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Schleuse needs Python 3.11 or later: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup      ## the main job in about a minute: a week of three senders through the lock, the sum, and a dashboard until Ctrl-C
	$(BIN)/schleuse demo

test: setup      ## the default test suite (no Java, no Docker)
	$(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder

test-kafka: setup  ## the suite that needs Apache Kafka itself (Java 17 or later; its jars by KAFKA_HOME or Maven)
	$(BIN)/pytest -q -m kafka

test-browser: setup  ## the suite that needs Chromium (CHROMIUM names it where it is not on the PATH)
	$(BIN)/pytest -q -m browser

soak: setup      ## everything that can go wrong, for half an hour, on three brokers (SEED=n repeats one); prints its report
	$(BIN)/python -m tests.soak $(if $(SEED),--seed $(SEED))

SECONDS ?= 60
fuzz: setup .venv-fuzz/.ready  ## every fuzz target for a minute each (SECONDS=10 TARGETS="events agent" for less); Linux
	PYTHONPATH=.venv-fuzz $(BIN)/python -m tests.fuzz $(TARGETS) --seconds $(SECONDS)

.venv-fuzz/.ready: tests/fuzz/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target .venv-fuzz -r $<
	@touch $@

bench: bench-worker bench-latency bench-growth bench-compare   ## every benchmark, half an hour: tables into docs/capacity.md and docs/speed.md

bench-worker: setup      ## rate, CPU, memory and stages of one worker
	$(BIN)/python -m benchmarks.worker
	$(MAKE) bench-capacity

bench-latency: setup     ## produce to visible; a withdrawal to its effect
	$(BIN)/python -m benchmarks.latency

bench-growth: setup      ## what grows with what, one factor at a time
	$(BIN)/python -m benchmarks.growth
	$(MAKE) bench-capacity

bench-preferences: setup ## ten million preferences: six gigabytes of memory
	$(BIN)/python -m benchmarks.growth --only preferences --preferences 10000000

bench-steady: setup      ## an hour at a steady rate
	$(BIN)/python -m benchmarks.steady

bench-capacity: setup    ## the simulation and the derivation of docs/capacity.md, from the newest results
	$(BIN)/python -m benchmarks.bursts
	$(BIN)/python -m benchmarks.capacity

bench-setup: .venv-bench/.ready   ## make .venv-bench: Schleuse and what it is compared with (Java 17 and Maven besides)

.venv-bench/.ready: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.txt
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

bench-compare: bench-setup   ## the same work by Schleuse, Faust, Quix, Bytewax, bare loops, Kafka Streams: into docs/speed.md
	.venv-bench/bin/python -m benchmarks.compare $(COMPARE)

bench-accuracy: bench-setup  ## how far published figures are from the exact ones: into docs/publishing.md
	.venv-bench/bin/python -m benchmarks.accuracy

bench-figures: setup  ## publishing 2,000 mailings of 50 million events: into docs/publishing.md (2 GB of disk, ten minutes)
	$(BIN)/python -m benchmarks.figures

bench-reading: setup   ## how fast the dashboard's questions and pages are: into docs/dashboard.md
	$(BIN)/python -m benchmarks.reading $(if $(KEEP),--keep $(KEEP))

bench-lock: setup   ## write benchmarks/requirements.txt anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra embedded --extra publish -c requirements.lock pyproject.toml benchmarks/requirements.in -o benchmarks/requirements.txt

check: setup     ## ruff, mypy strict, import rules
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup    ## let ruff mend what it can
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: setup      ## write requirements.lock, and the image's own, anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra embedded --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra image -c requirements.lock pyproject.toml -o deploy/compose/requirements.lock

clean:           ## forget .venv and every cache
	rm -rf .venv .venv-bench .venv-fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
