# Everything that is done with this project has a name here; `make help` lists them.

# Where rustup puts it, for shells that have not read its settings yet.
CARGO ?= $(shell command -v cargo 2>/dev/null || echo "$(HOME)/.cargo/bin/cargo")
export CARGO

.DEFAULT_GOAL := help
.PHONY: help run test test-fast soak build dist fmt lint openapi bench clean rust postgres test-programs bench-programs
# What is needed is looked for in the order in which it is listed: Rust first.
.NOTPARALLEL:

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: rust postgres build ## build, then serve on http://127.0.0.1:8080 with a private Postgres and the demo
	@exec target/release/ridewire serve --demo

test: rust postgres ## run all tests, against real Postgres processes; compare the server with openapi.yaml
	@scripts/test.sh

test-fast: rust postgres ## run the unit and integration tests alone
	@scripts/test.sh fast

soak: rust postgres test-programs ## run the tests that are shortened in `make test` at their whole length (an hour and a half)
	@ulimit -n 65536 2>/dev/null || ulimit -n $$(ulimit -H -n); \
	RIDEWIRE_SOAK=1 $(CARGO) test --release --test faults -- --nocapture hostile chaos soak && \
	RIDEWIRE_SOAK=1 $(CARGO) test --release --test schedules
	@scripts/schemathesis.sh 200

build: rust ## build target/release/ridewire
	@[ -x target/release/ridewire ] || \
		echo "ridewire: building the server with everything below it: about four minutes on two cores, this once" >&2
	@$(CARGO) build --release

dist: rust ## build target/dist/ridewire, the server to deploy: optimised as a whole, with its own allocator
	@$(CARGO) build --profile dist --features jemalloc

fmt: rust ## format the code
	@$(CARGO) fmt

lint: rust ## check format, lints and documentation
	@$(CARGO) fmt --check
	@$(CARGO) clippy --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --lib --bins --examples

# By way of another file, so that a failure leaves the present one as it is.
openapi: rust ## write openapi.yaml from the code
	@$(CARGO) run -q -- openapi > openapi.yaml.new && mv openapi.yaml.new openapi.yaml || { rm -f openapi.yaml.new; exit 1; }

bench: rust postgres bench-programs ## run the benchmarks: beside Postgres alone, nchan and a server on Express
	@$(CARGO) bench --profile dist --features jemalloc --bench ridewire

clean: rust ## remove what was built (not .ridewire, which holds data)
	@$(CARGO) clean

rust:
	@scripts/rust.sh

postgres:
	@scripts/postgres.sh

test-programs:
	@scripts/test-programs.sh

bench-programs:
	@scripts/bench-programs.sh
