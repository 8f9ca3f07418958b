# Hull: everything a person or CI does with this tree. `make help` tells.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
TOOLS := .cache/bin
# rustup puts cargo here; scripts/setup may have installed it a moment ago.
export PATH := $(HOME)/.cargo/bin:/usr/local/go/bin:$(PATH)

.PHONY: check-arm64 help setup check demo build test adversary test-vm conformance-vm power-cuts bench-vm vm vm-programs lint fmt tools conformance fuzz bench bench-oci bench-pull peers deb install uninstall clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing on a fresh Debian 12 (quick when all is there)
	@scripts/setup

demo: setup ## Set up, build, and see a pod live and go, with the time of every step
	@cargo build --release -p hull
	@cargo build --release -p hull-tests --bin demo
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/demo"

build: setup ## Build the release binary
	@cargo build --release -p hull

# Tests of a whole node run the daemon that lies beside them, so it is built first. Of what T names,
# everything that matches runs: `make test T=killed`.
test: setup tools ## Run every test, or those that T=name names
	@cargo build -p hull
	@cargo test --workspace --no-fail-fast -- $(T)

# ROUNDS is for each race, and the rest in proportion: 500 are 20,000 requests of the fuzzer and 10,000 pods of the soak. T names
# tests as above: make adversary ROUNDS=2000 T=races. ADVERSARY_SEED=N repeats a run of the fuzzer, CYCLES=N sets the soak's pods.
adversary: setup tools ## Attack Hull from containers, images, a registry and clients; every race 500 times
	@cargo build -p hull
	@ADVERSARY_ROUNDS=$(or $(ROUNDS),500) $(if $(CYCLES),ADVERSARY_CYCLES=$(CYCLES)) cargo test -p hull-tests --test escape -- $(T)

# Values go in and come out: no root, no container, no package, no Go. Tests that need root lie in a
# crate's own `tests` folder; these three of them need none.
VALUES := --lib --bins --test tidy --test interface --test seeds

check: ## Format, clippy, tidy and the tests of values: quick, without root
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo test -q --workspace $(VALUES)

lint: setup ## Format, clippy, tidy, and licences where cargo-deny is installed
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo test -q -p hull-tests --test tidy
	@if command -v cargo-deny > /dev/null; then cargo deny --offline check bans licenses sources; \
	 else echo "note: cargo-deny is not installed, so deny.toml was not checked (hint: cargo install --locked cargo-deny)"; fi

check-arm64: setup ## Check the code for arm64, where the Rust targets and a C compiler for it are installed
	@scripts/check-arm64

fmt: ## Format
	@cargo fmt --all

tools: $(TOOLS)/critest ## Build crictl, critest and kubectl's streaming client, the versions pinned in tests/tools/go.mod

$(TOOLS)/critest: tests/tools/go.mod tests/tools/go.sum tests/tools/kubeclient/main.go tests/tools/nriplugin/main.go scripts/tools
	@scripts/tools "$(TOOLS)"

# MODE names one of them: serial, websocket, parallel. ARGS go to critest: ARGS=-ginkgo.focus=exec
conformance: setup tools ## Run critest in full against a fresh node, in every mode
	@cargo build -p hull
	@cargo build -p hull-tests --bin conformance
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/debug/hull" "$${CARGO_TARGET_DIR:-target}/debug/conformance" $(MODE) $(if $(ARGS),-- $(ARGS))

# A node with cgroup v2, systemd and AppArmor, emulated. KERNEL=oldest is Debian 12's own. P names programs
# of tests (make test-vm P="vm limits"); without either, it is all that need a kernel or a node, and critest.
vm-programs: setup tools
	@cargo build -p hull
	@cargo build --workspace --bin conformance --bin power --bin fixtures --example soak
	@mkdir -p target/vm
	@cargo test --workspace --no-run --test '*' 2>&1 | tee target/vm/build.log | \
	  sed -n '/\/\(tidy\|interface\|quick\|seeds\)-/d; s/^ *Executable .* (\(.*\))$$/\1/p' > target/vm/programs || { cat target/vm/build.log; false; }
	@target/debug/fixtures

test-vm: vm-programs ## Run the tests that need a node in a VM of its own, and critest; T=name as for test, P=program
	@failed=0; VM_PROGRAMS="$(P)" scripts/vm run suite $(T) || failed=1; \
	 $(if $(P)$(T),,scripts/vm run conformance serial || failed=1;) exit $$failed

conformance-vm: vm-programs ## Run critest in that VM, with systemd and AppArmor; MODE as above
	@scripts/vm run conformance $(or $(MODE),serial)

power-cuts: vm-programs ## Kill that VM at random moments, and look what it left; N=50 times
	@scripts/vm cuts $(or $(N),50)

# VM_APPEND adds to the kernel's command line: KERNEL=oldest VM_APPEND=systemd.unified_cgroup_hierarchy=0 has cgroup v1.
bench-vm: build vm-programs ## Times of a pod's life in that VM with each cgroup driver; ARGS to cri-bench
	@cargo build --release -p cri-bench
	@cargo build --workspace --bin bench_drivers
	@VM_HULL=target/release/hull scripts/vm run bench $(ARGS)

vm: vm-programs ## A shell in that VM
	@scripts/vm shell

# SECONDS is for each target; T names some of them: make fuzz SECONDS=600 T="spdy headers"
fuzz: setup ## Fuzz every parser of bytes that others send (needs nightly and cargo-fuzz; says so)
	@SECONDS_EACH=$(or $(SECONDS),60) scripts/fuzz $(T)

# ARGS go to cri-bench: ARGS=--quick, ARGS="--only pods,exec --label Hull"; docs/bench.md has them all.
bench: build ## Measure Hull and the peers that `scripts/peers` got, side by side
	@cargo build --release -p cri-bench
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/side-by-side" $(ARGS)

peers: setup ## Build or install the runtimes that `make bench` compares with
	@scripts/peers

bench-oci: build ## Times of `hull oci` beside runc and crun, where they are installed
	@cargo build --release -p hull-tests --bin oci_bench
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/oci_bench" $(ARGS)

bench-pull: build ## What pulls cost: time, processor, disk, memory
	@cargo build --release -p hull-tests --bin bench_pull
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/bench_pull" $(ARGS)

deb: build ## A Debian package of the release binary, below target/debian
	@scripts/deb

install: build ## Install the binary into PREFIX/bin
	@install -D -m 0755 "$${CARGO_TARGET_DIR:-target}/release/hull" "$(DESTDIR)$(PREFIX)/bin/hull"
	@echo "installed $(DESTDIR)$(PREFIX)/bin/hull; try: hull check"

uninstall: ## Remove it again
	@rm -f "$(DESTDIR)$(PREFIX)/bin/hull"

clean: ## Remove what was built
	@cargo clean
	@rm -rf .cache
