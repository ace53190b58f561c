.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BESIDE := .venv/acceptance.log

.PHONY: help setup run test acceptance simulate simulate-caches fuzz fuzz-http torture handover mutants bench-faults bench-serving bench-ingest bench-freshness bench-state bench-scale bench-memory profile check lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make the virtual environment in .venv with the locked dependencies

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo 'First time: setting up .venv takes about half a minute.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

run: $(READY) ## Run the whole platform in one worker and replay real events; Ctrl-C stops everything
	@trap : INT; $(BIN)/freshet demo || [ $$? -eq 130 ]

test: $(READY) ## Run all tests, those with whole workers beside the others
	@$(BIN)/python -m pytest tests/acceptance tests/chaos >$(BESIDE) 2>&1 & beside=$$!; \
	trap 'kill $$beside' INT TERM; \
	$(BIN)/python -m pytest --ignore=tests/acceptance --ignore=tests/chaos; others=$$?; \
	wait $$beside; acceptance=$$?; cat $(BESIDE); \
	exit $$((others | acceptance))

acceptance: $(READY) ## Share the whole demo log between two workers on real services, on each record; some minutes
	$(BIN)/python -m pytest -m long tests/acceptance

simulate: $(READY) ## Run the pipeline in simulated worlds where everything goes wrong: SEEDS=200000 SEED=0, or SEEDS=1 for one
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),10000) --seed $(or $(SEED),0)

simulate-caches: $(READY) ## Read and write rows through simulated caches in every order: SEEDS=1000000 SEED=0
	@$(BIN)/python -m tests.simulation.races --seed $(or $(SEED),0)
	@$(BIN)/python -m tests.simulation.cache_runs --seeds $(or $(SEEDS),100000) --seed $(or $(SEED),0)

fuzz: $(READY) ## Give the pipeline malformed events: PAYLOADS=1000000 SEED=17, or BATCH=4 of a seed alone
	@$(BIN)/python -m tests.fuzz --payloads $(or $(PAYLOADS),1000000) --seed $(or $(SEED),0) --batch $(or $(BATCH),-1)

fuzz-http: $(READY) ## Broken requests, clients that go away and clients that dribble, at a real worker: CASES=50000 CANCELLED=100000 SLOW=1000 SEED=17
	@$(BIN)/python -m tests.edge --cases $(or $(CASES),50000) --cancelled $(or $(CANCELLED),100000) --slow $(or $(SLOW),1000) --seed $(or $(SEED),0)

torture: $(READY) ## Kill workers and break services under load, then compare everything: KILLS=200 FAULTS=100 MINUTES=60 SEED=17
	@$(BIN)/python -m tests.chaos.torture --kills $(or $(KILLS),200) --faults $(or $(FAULTS),100) --minutes $(or $(MINUTES),60) $(if $(EVENTS),--events $(EVENTS)) $(if $(SEED),--seed $(SEED))

handover: $(READY) ## Let a worker join and leave under load, again and again: TIMES=50 SEED=17
	@$(BIN)/python -m tests.chaos.handover --times $(or $(TIMES),50) $(if $(SEED),--seed $(SEED))

mutants: $(READY) ## Break one rule of the pipeline at a time; the tests must notice each. ONLY=fence for some
	@$(BIN)/python -m tests.mutants --only "$(ONLY)"

bench-faults: $(READY) ## What readers feel while rows expire, Redis is gone, or too many ask; wants wrk and h2load
	@$(BIN)/python -m bench.faults

bench-serving: $(READY) ## Requests per second of one core, beside Feast's server; wants wrk and h2load: ROUNDS=3 SECONDS=5
	@$(BIN)/python -m bench.serving --rounds $(or $(ROUNDS),3) --seconds $(or $(SECONDS),5)

bench-ingest: $(READY) ## Events per second beside Faust, Quix Streams and Bytewax, answers checked: EVENTS=300000 ROUNDS=3
	@$(BIN)/python -m bench.ingest --events $(or $(EVENTS),300000) --rounds $(or $(ROUNDS),3)

bench-freshness: $(READY) ## From an event's sending until it can be read over HTTP: RATES=2000,10000 SECONDS=15
	@$(BIN)/python -m bench.freshness $(if $(RATES),--rates $(RATES)) $(if $(SECONDS),--seconds $(SECONDS))

bench-state: $(READY) ## What a key costs in memory and on disk, and an event in CPU: KEYS=1000000,10000000,50000000
	@$(BIN)/python -m bench.state --keys $(or $(KEYS),1000000,10000000)

bench-scale: $(READY) ## How cost grows with events, groups, keys, windows, hot keys and workers; some minutes: ROUNDS=3 KEYS=10000000
	@$(BIN)/python -m bench.scale --rounds $(or $(ROUNDS),3) --keys-max $(or $(KEYS),10000000)

bench-memory: $(READY) ## Memory of a worker under a load that stays as it is, after 15 minutes of it: MINUTES=30
	@$(BIN)/python -m bench.steady --minutes $(or $(MINUTES),30)

profile: $(READY) ## Where each microsecond of an event goes; renews the table in docs/explanation/hot-path.md
	@$(BIN)/python -m bench.steps --write docs/explanation/hot-path.md

check: $(READY) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(READY) ## Renew requirements.lock and, without tools, requirements.runtime.lock from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --group dev --no-annotate --no-header --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --constraint requirements.lock --output-file requirements.runtime.lock pyproject.toml

clean: ## Remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info .freshet
