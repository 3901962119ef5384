# `make` alone lists the targets. CI calls only these.
.DEFAULT_GOAL := help
.PHONY: help run build check deny test integration sim mutants nightly fuzz demo cluster bench bench-scaling bench-transactions
export RUST_BACKTRACE ?= 0
CARGO ?= cargo
CACHE = $(or $(TEST_CACHE_DIR),.cache)
UNIT = $(CARGO) test --config integration-tests/unit-tests.toml --locked --release

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the broker, as it is shipped
	$(CARGO) build --release --locked

run: build ## builds and starts a broker on 127.0.0.1:9092, its data below ./data
	@exec target/release/strandline serve

check: ## format, lints, layout, unit and contract tests
	$(CARGO) fmt --check --all
	$(CARGO) clippy --locked --release --workspace --exclude strandline-models --all-targets -- -D warnings
	$(UNIT) --lib
	$(CARGO) test --locked --release --test '*' -p strandline -p strandline-history -p strandline-sim -p strandline-fuzz
	$(CARGO) test --locked --release --lib --bins -p strandline-history -p strandline-sim
	$(CARGO) test --locked --release -p strandline-load

deny: ## licences, sources and bans of all dependencies
	integration-tests/setup.sh deny
	$(CACHE)/bin/cargo-deny check licenses bans sources

integration: build ## the real binary with real clients, stores and databases
	integration-tests/setup.sh
	integration-tests/run.sh

SIM = $(CARGO) run --quiet --locked --release -p strandline-sim --
sim: ## a whole cluster in one thread, with faults, checked (SEEDS=200, FROM=0; SEED=17 for one, LOG=debug)
	$(if $(SEED),,$(SIM) twice --seeds $(or $(TWICE),20))
	$(SIM) $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),200) --from $(or $(FROM),0)) $(if $(LOG),--log $(LOG))

mutants: ## planted defects, each of which the simulation has to find (ONLY=name for one)
	$(CARGO) run --quiet --locked --release -p strandline-sim --features planted -- mutants $(if $(ONLY),--only $(ONLY))

test: check sim integration ## everything that CI runs

nightly: build deny ## full matrices and long runs
	integration-tests/setup.sh
	integration-tests/setup.sh clients previous
	$(CARGO) test --locked --release -p strandline-models
	integration-tests/run.sh --nightly

fuzz: ## every decoder on hostile bytes, with coverage (FUZZ_SECONDS=3600 each, TARGET=name for one, FUZZ_GROW=1 keeps finds)
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/integration-tests/fuzz/instrument.sh \
		$(CARGO) test --locked --release -p strandline-fuzz -- --nocapture

demo: build ## Debian's package index through a broker and a group of readers that are killed
	integration-tests/setup.sh python kafka java
	$(CACHE)/venv/bin/python integration-tests/demo.py

cluster: build ## three brokers over PostgreSQL and MinIO, to try and to kill
	integration-tests/setup.sh python postgres minio
	@exec $(CACHE)/venv/bin/python integration-tests/cluster.py

bench: build ## Strandline beside Apache Kafka (QUICK=1: nine minutes)
	integration-tests/setup.sh kafka
	$(CARGO) build --locked --release -p strandline-load
	python3 integration-tests/bench/bench.py $(if $(QUICK),--quick)

bench-transactions: build ## what transactions cost, beside Kafka's
	integration-tests/setup.sh python kafka go
	$(CACHE)/venv/bin/python integration-tests/bench/transactions.py

bench-scaling: build ## 1, 2 and 3 brokers of a cluster under load, over MinIO
	integration-tests/setup.sh python postgres minio
	$(CARGO) build --locked --release -p strandline-load
	$(CACHE)/venv/bin/python integration-tests/bench/scaling.py
