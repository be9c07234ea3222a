# Everything that people do here, as one word each. `make` alone shows the list.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)/release
# The directory whose files `make run` stores.
DIR ?= .
# The seeds of `make sim`, the last one not included; a number alone is so many.
SEEDS ?= 0..10000
# How long each measurement of `make bench` takes, in seconds.
SECONDS ?= 1

# What goes wrong in `make sim`: links, turnover (leaders change too), churn (servers crash and return too) or loss (all copies go too).
MODE ?= churn
# How long `make chaos` breaks things, on each control plane.
MINUTES ?= 5

.DEFAULT_GOAL := help
.PHONY: help build run test check fmt redis objstore stop status bench sim chaos sanitize clean tools

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build everything, optimized
	$(CARGO) build --release --workspace

run: ## Start five servers, store the files of DIR=. in them, prove every object at every server; ends by itself
	$(CARGO) build --release --package star-cli
	$(TARGET)/star demo $(DIR)

test: ## Run all tests; installs what they need (redis-server, python3, valgrind) where it is missing
	scripts/need.sh cc redis-server python3
	-scripts/need.sh valgrind # Without it only the counts of instructions are skipped.
	scripts/test.sh

check: ## The gate: format, layout, lints, docs, tests
	$(CARGO) fmt --all --check
	scripts/check-layout.sh
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --lib
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --bins
	$(MAKE) test

fmt: ## Format all code
	$(CARGO) fmt --all

redis: tools ## Start a Redis server for the control plane (installs redis-server where it is missing)
	scripts/need.sh redis-server
	$(TARGET)/service_manager start redis

objstore: tools ## Start the star servers of this machine; on Redis if that runs, see `make redis`
	$(TARGET)/service_manager start objstore

stop: tools ## Stop the star servers and Redis
	$(TARGET)/service_manager stop all

status: tools ## Show what runs, and whether it is healthy
	$(TARGET)/service_manager status all

bench: ## Measure Star beside CRAQ, Raft, etcd, Redis and NATS (packages etcd-server, redis-server, nats-server; or left out)
	$(CARGO) build --release --package star-cli
	$(TARGET)/star compare --servers 3,5 --seconds $(SECONDS) --out bench-report

sim: ## Run the simulator over SEEDS=0..10000 with MODE=churn on all cores; again after a stop, it goes on where it was
	$(CARGO) build --release --package star-sim --bin sim
	$(TARGET)/sim --seeds $(SEEDS) --mode $(MODE) --resume $(TARGET)/sim-$(MODE).json

chaos: ## Break clusters under load for MINUTES=5 on each control plane; prove that nothing was lost or stale
	scripts/need.sh redis-server
	$(CARGO) build --release --package star-cli
	for control in embedded redis; do \
		echo "== control plane $$control"; \
		$(TARGET)/star chaos --seconds $$(($(MINUTES) * 60)) --control $$control || exit 1; \
	done

sanitize: ## Run the tests of the mapped store under the address sanitizer (needs a nightly compiler)
	scripts/sanitize.sh address

clean: ## Stop what runs, and remove all that was built and stored, logs and the data of Redis
	if [ -x $(TARGET)/service_manager ]; then $(TARGET)/service_manager stop all --lose-objects; fi
	$(CARGO) clean
	rm -rf .star

tools:
	@$(CARGO) build --release --package star-cli --package star-service-manager
