# The front door. Plain `make` lists what there is.

CARGO      ?= cargo
INSTANCE   ?= instance
MUSL       := x86_64-unknown-linux-musl
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# The static executable has to stay under this many bytes.
MAX_SIZE   := 10000000

.DEFAULT_GOAL := help
.PHONY: help build run test lint generate musl size clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1 \2/p' Makefile | \
	while read -r name about; do printf '  make %-6s %s\n' "$$name" "$$about"; done

build: ## build the executable for this machine, target/release/mcias
	$(CARGO) build --release --locked

run: build $(INSTANCE)/mcias.conf ## build, make an instance in ./instance on first run, and serve it until Ctrl-C
	@echo
	@echo "MCIAS will answer at https://localhost:8443; $(INSTANCE)/tls/ca.crt vouches for its certificate."
	@echo "The first password of 'admin' is in $(INSTANCE)/admin-password. Log in, from another terminal in this folder:"
	@echo
	@echo "printf '{\"username\":\"admin\",\"password\":\"%s\"}' \"\$$(cat $(INSTANCE)/admin-password)\" |"
	@echo "  curl -sS --cacert $(INSTANCE)/tls/ca.crt -H 'Content-Type: application/json' --data-binary @- https://localhost:8443/v1/auth/login"
	@echo
	@echo "README.md goes on from there. Ctrl-C ends the server; the instance stays."
	@echo
	@exec $(TARGET_DIR)/release/mcias server --config $(INSTANCE)/mcias.conf

# Only where there is none. It is the last file that init makes.
$(INSTANCE)/mcias.conf: | build
	$(TARGET_DIR)/release/mcias init --dir $(INSTANCE) >/dev/null

test: ## run the whole test suite
	$(CARGO) test --locked --no-fail-fast

lint: ## check the formatting, and clippy with warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- --deny warnings

generate: ## make the Rust of proto/ anew; needs no protoc
	$(CARGO) run --quiet --locked --manifest-path tools/generate/Cargo.toml --target-dir $(TARGET_DIR)/generate
	$(CARGO) fmt

musl: ## build the static executable, target/x86_64-unknown-linux-musl/release/mcias
	@command -v musl-gcc >/dev/null || { echo "musl-gcc is missing; on Debian it is in musl-tools" >&2; exit 1; }
	$(CARGO) build --release --locked --target $(MUSL)

size: musl ## build the static executable, and check that it is under 10 MB
	@bytes=$$(wc -c <$(TARGET_DIR)/$(MUSL)/release/mcias); \
	echo "$(TARGET_DIR)/$(MUSL)/release/mcias: $$bytes bytes of at most $(MAX_SIZE)"; \
	test "$$bytes" -lt $(MAX_SIZE)

clean: ## remove what was built; an instance stays
	$(CARGO) clean
