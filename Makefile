# The commands of this project; `make help` lists them.

# rustup's path, for shells that have not read rustup's settings yet.
CARGO ?= $(shell command -v cargo 2>/dev/null || echo "$(HOME)/.cargo/bin/cargo")
export CARGO

.DEFAULT_GOAL := help
.PHONY: help run test test-fast soak build dist fmt lint openapi settings docs prose dependencies bench clean rust postgres test-programs bench-programs
# Make checks the prerequisites in the order in which they are listed: Rust first.
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: rust postgres build ## build the server and start it on http://127.0.0.1:8080, with a private Postgres and the demo
	@exec target/release/ridewire serve --demo

test: rust postgres ## run all tests, with real Postgres servers, and compare the server with openapi.yaml
	@scripts/test.sh

test-fast: rust postgres ## run only the unit and integration tests
	@scripts/test.sh fast

soak: rust postgres test-programs ## run the tests that `make test` shortens, at full length (an hour and a half)
	@ulimit -n 65536 2>/dev/null || ulimit -n $$(ulimit -H -n); \
	RIDEWIRE_SOAK=1 $(CARGO) test --release --test faults -- --nocapture hostile chaos soak && \
	RIDEWIRE_SOAK=1 $(CARGO) test --release --test schedules
	@scripts/schemathesis.sh 200

build: rust ## build target/release/ridewire
	@[ -x target/release/ridewire ] || \
		echo "ridewire: building the server and its dependencies: about four minutes on two cores, the first time only" >&2
	@$(CARGO) build --release

dist: rust ## build target/dist/ridewire, the server to deploy: with link-time optimisation and jemalloc
	@$(CARGO) build --profile dist --features jemalloc

fmt: rust ## format the code
	@$(CARGO) fmt

lint: rust ## check the format, the lints and the documentation
	@$(CARGO) fmt --check
	@$(CARGO) clippy --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --lib --bins --examples

# Writes another file first, so that a failure leaves openapi.yaml unchanged.
openapi: rust ## write openapi.yaml from the code
	@$(CARGO) run -q -- openapi > openapi.yaml.new && mv openapi.yaml.new openapi.yaml || { rm -f openapi.yaml.new; exit 1; }

docs: rust ## build the documentation as a book in target/docs
	@scripts/docs.sh

prose: ## measure the sentences of the documentation and the doc comments
	@scripts/prose.sh

settings: rust ## write the tables of docs/reference/settings.md from the code
	@$(CARGO) run -q -- settings > settings.new && \
	awk '/<!-- end of settings -->/ { skip = 0 } !skip; /lists them -->/ { print ""; while ((getline line < "settings.new") > 0) print line; print ""; skip = 1 }' \
		docs/reference/settings.md > page.new && mv page.new docs/reference/settings.md; rm -f settings.new page.new

dependencies: rust ## check the dependencies: licences, sources, known vulnerabilities, and that each one is used
	@scripts/dependencies.sh

bench: rust postgres bench-programs ## run the benchmarks, with Postgres alone, nchan, Express, Mercure and Centrifugo for comparison
	@$(CARGO) bench --profile dist --features jemalloc --bench ridewire

clean: rust ## remove build output (not .ridewire, which has data)
	@$(CARGO) clean

rust:
	@scripts/rust.sh

postgres:
	@scripts/postgres.sh

test-programs:
	@scripts/test-programs.sh

bench-programs:
	@scripts/bench-programs.sh
