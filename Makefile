# The front door. Plain `make` lists what there is.

CARGO      ?= cargo
INSTANCE   ?= instance
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# The static executable has to stay under this many bytes.
MAX_SIZE   := 10000000

# What a release is called. `mcias version` of the static executable says it. What isn't committed makes it `-dirty`.
VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1))
# The time stamps in what is packed: the commit's.
EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0)

# This machine's architecture as images call it, and Rust's names.
ARCH         := $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
TRIPLE_amd64 := x86_64-unknown-linux-musl
TRIPLE_arm64 := aarch64-unknown-linux-musl
static        = $(TARGET_DIR)/$(TRIPLE_$(1))/release/mcias
MUSL         := $(TRIPLE_$(ARCH))
# For which architectures `make dist` and `make image` pack.
ARCHES       ?= amd64 arm64
DIST         := $(TARGET_DIR)/dist
REVISION      = $(shell git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null)
DOCKER       ?= docker
INSTALL_FLAGS ?=

# Where it is built isn't in the executable, so that two folders give the same bytes. Rust's own linker does the same for
# every architecture, packs the relocations (300 kB), and leaves a map for docs/size.md.
CARGO_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
REMAP      = $(foreach option,$(1),$(option)=$(CURDIR)=/mcias $(option)=$(CARGO_DIR)=/cargo $(option)=$(abspath $(TARGET_DIR))=/target)
MAP        = $(abspath $(TARGET_DIR))/mcias-$(1).map
# $(1) the architecture, $(2) what cargo is to do. The C compilers' builds would begin anew with each time stamp.
build_static = unset SOURCE_DATE_EPOCH; MCIAS_VERSION='$(VERSION)' \
	RUSTFLAGS='$(call REMAP,--remap-path-prefix) -Clinker=rust-lld -Clink-arg=-zpack-relative-relocs -Clink-arg=-Map=$(MAP)' \
	CFLAGS_$(subst -,_,$(TRIPLE_$(1)))='$(call REMAP,-ffile-prefix-map)' \
	$(CARGO) $(2) --release --locked --target $(TRIPLE_$(1))

.DEFAULT_GOAL := help
# cargo sees to the cores.
.NOTPARALLEL:
.PHONY: help build run test test-ship test-arm64 bench lint generate audit man musl size size-table dist image docker install clean

help: ## list these targets
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/\1 \2/p' Makefile | \
	while read -r name about; do printf '  make %-11s %s\n' "$$name" "$$about"; done

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

bench: musl ## measure what docs/speed.md tells of (ONLY="check login" for some of its sections), as a table
	MCIAS_EXECUTABLE='$(abspath $(call static,$(ARCH)))' $(CARGO) bench --locked --bench mcias -- $(ONLY)

lint: ## check the formatting, and clippy with warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- --deny warnings

generate: ## make the Rust of proto/ anew; needs no protoc
	$(CARGO) run --quiet --locked --manifest-path tools/generate/Cargo.toml --target-dir $(TARGET_DIR)/generate
	$(CARGO) fmt

audit: ## check the dependencies against known holes and their licences
	@command -v cargo-deny >/dev/null || { echo "NOT RUN: cargo-deny is missing; 'cargo install cargo-deny --locked' builds it" >&2; exit 1; }
	cargo-deny --locked check bans licenses sources
	@cargo-deny fetch db || { echo "NOT RUN: the database of known holes can't be had from here" >&2; exit 1; }
	cargo-deny --locked check advisories

# The pages themselves are in man/; tests/man.rs makes them from man/*.in and the table of commands.
MAN := $(patsubst man/%,$(TARGET_DIR)/man/%.gz,$(wildcard man/*.[1-9]))

man: $(MAN) ## pack the manual pages, target/man/*.gz

$(TARGET_DIR)/man/%.gz: man/%
	@mkdir -p $(@D)
	gzip -9n <$< >$@

musl: ## build the static executable for this machine
	@command -v musl-gcc >/dev/null || { echo "musl-gcc is missing; on Debian it is in musl-tools" >&2; exit 1; }
	$(call build_static,$(ARCH),build)

# The one for another machine; zig has a C compiler for each.
cross-%:
	@command -v cargo-zigbuild >/dev/null || { echo "cargo-zigbuild is missing: 'pip install ziglang cargo-zigbuild'" >&2; exit 1; }
	$(call build_static,$*,zigbuild)

size: musl ## build the static executable, and check that it is under 10 MB
	@bytes=$$(wc -c <$(call static,$(ARCH))); \
	echo "$(call static,$(ARCH)): $$bytes bytes of at most $(MAX_SIZE)"; \
	test "$$bytes" -lt $(MAX_SIZE)

size-table: musl ## write docs/size.md: what weighs what in the static executable
	ship/size $(call static,$(ARCH)) $(call MAP,$(ARCH)) '$(VERSION)' >docs/size.md

# This machine's executable says what shells need, for the others as well.
completions: musl
	@mkdir -p $(TARGET_DIR)/completions
	$(call static,$(ARCH)) completions bash >$(TARGET_DIR)/completions/mcias.bash
	$(call static,$(ARCH)) completions zsh >$(TARGET_DIR)/completions/_mcias
	$(call static,$(ARCH)) completions fish >$(TARGET_DIR)/completions/mcias.fish

# Each architecture's executable: this machine's own, or another's.
executables = $(foreach arch,$(ARCHES),$(if $(filter $(ARCH),$(arch)),musl,cross-$(arch)))

tarball-%: man completions
	@mkdir -p $(DIST)
	ship/sbom $(TRIPLE_$*) '$(VERSION)' >$(TARGET_DIR)/mcias-$*.cdx.json
	SOURCE_DATE_EPOCH=$(EPOCH) ship/tarball $(call static,$*) $* '$(VERSION)' $(TARGET_DIR) $(DIST)

image-%:
	@mkdir -p $(DIST)
	SOURCE_DATE_EPOCH=$(EPOCH) ship/image $(call static,$*) $* '$(VERSION)' '$(REVISION)' $(DIST)/mcias-$(VERSION)-image-$*.tar

dist: $(executables) $(addprefix tarball-,$(ARCHES)) ## pack the tarballs for amd64 and arm64 (ARCHES says otherwise) into target/dist
	ship/sums $(DIST) '$(VERSION)'

image: $(executables) $(addprefix image-,$(ARCHES)) ## pack the container images as archives for 'podman load', without an engine
	ship/sums $(DIST) '$(VERSION)'

docker: ## build the container image with docker, or what DOCKER names
	$(DOCKER) build --build-arg VERSION='$(VERSION)' --build-arg REVISION='$(REVISION)' \
		--tag mcias:$(VERSION) .

install: musl tarball-$(ARCH) ## build the tarball for this machine and install from it, with INSTALL_FLAGS (see install.sh --help)
	$(DIST)/mcias-$(VERSION)-linux-$(ARCH)/install.sh $(INSTALL_FLAGS)

show-version:
	@echo '$(VERSION)'

test-ship: ## test what is shipped: tarball, install.sh, unit, image (as root; needs the tools that .ci/run installs)
	$(MAKE) dist image ARCHES=$(ARCH)
	tests/ship/all $(DIST) '$(VERSION)' $(ARCH)

test-arm64: ## build the arm64 executable and try it under qemu
	$(MAKE) dist image ARCHES=arm64
	tests/ship/arm64 $(DIST) '$(VERSION)'

clean: ## remove what was built; an instance stays
	$(CARGO) clean
