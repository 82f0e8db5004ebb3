# Everything that is done with this project has a name here; `make help` lists them.

# Where rustup puts it, for shells that have not read its settings yet.
CARGO ?= $(shell command -v cargo 2>/dev/null || echo "$(HOME)/.cargo/bin/cargo")

.DEFAULT_GOAL := help
.PHONY: help run test soak build fmt lint openapi bench clean rust postgres test-programs bench-programs

# Thousands of streams are more files than a login has to begin with.
MANY_FILES = ulimit -n 65536 2>/dev/null || ulimit -n $$(ulimit -H -n)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: postgres build ## build, then serve on http://127.0.0.1:8080 with a private Postgres and the demo
	@exec target/release/ridewire serve --demo

test: postgres test-programs rust ## run all tests, against real Postgres processes; hold the server to openapi.yaml
	@$(MANY_FILES); $(CARGO) test
	@CARGO=$(CARGO) scripts/schemathesis.sh 15 1
	@RIDEWIRE_BIN=$(CURDIR)/target/debug/ridewire scripts/js.sh
	@RIDEWIRE_BIN=$(CURDIR)/target/debug/ridewire scripts/browser.sh
	@RIDEWIRE_BIN=$(CURDIR)/target/debug/ridewire scripts/quickstarts.sh

soak: postgres test-programs rust ## run the tests that are shortened in `make test` at their whole length (an hour and a half)
	@$(MANY_FILES); \
	RIDEWIRE_SOAK=1 $(CARGO) test --release --test faults -- --nocapture hostile chaos soak
	@CARGO=$(CARGO) scripts/schemathesis.sh 200

build: rust ## build target/release/ridewire
	@$(CARGO) build --release

fmt: rust ## format the code
	@$(CARGO) fmt

lint: rust ## check format, lints and documentation
	@$(CARGO) fmt --check
	@$(CARGO) clippy --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

# By way of another file, so that a failure leaves the present one as it is.
openapi: rust ## write openapi.yaml from the code
	@$(CARGO) run -q -- openapi > openapi.yaml.new && mv openapi.yaml.new openapi.yaml || { rm -f openapi.yaml.new; exit 1; }

bench: postgres bench-programs rust ## run the benchmarks: beside Postgres alone, nchan and a server on Express
	@$(CARGO) bench --bench ridewire

clean: rust ## remove what was built (not .ridewire, which holds data)
	@$(CARGO) clean

rust:
	@command -v $(CARGO) >/dev/null || { \
		echo "ridewire: Rust 1.95 or newer is needed; install it from https://rustup.rs, then run make again." >&2; exit 1; }

postgres:
	@scripts/postgres.sh

test-programs:
	@scripts/test-programs.sh

bench-programs:
	@scripts/bench-programs.sh
