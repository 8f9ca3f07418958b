# Hull: all commands for people and CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
TOOLS := .cache/bin
# rustup puts cargo here; scripts/setup may have installed it a moment ago.
export PATH := $(HOME)/.cargo/bin:/usr/local/go/bin:$(PATH)

.PHONY: book nightly zoo cluster runtime-classes cluster-programs cluster-down cluster-bench e2e e2e-gates e2e-node kind-node-vm kind-vm e2e-vm kind-image kubeadm-vm check-arm64 help setup check demo build test kubelet adversary test-vm conformance-vm power-cuts bench-vm vm vm-programs lint fmt tools conformance fuzz bench bench-oci bench-pull baselines criu compare-images deb install uninstall clean oci-interop test-upgrades rpm release check-packages reproducible sbom migrate-containerd

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install missing tools on Debian 12 (quick if nothing is missing)
	@scripts/setup

demo: setup ## Set up, build, and run a pod from start to end, with the time of every step
	@cargo build --release -p hull
	@cargo build --release -p hull-tests --bin demo
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/demo"

build: setup ## Build the release binary
	@cargo build --release -p hull

# Node tests run the daemon beside them, so it is built first. T selects the tests whose names contain it:
# `make test T=killed`.
test: setup tools kubelet ## Run all tests, or those that match T=name
	@cargo build -p hull
	@cargo test --workspace --no-fail-fast -- $(T)

zoo: setup ## Show how failures are explained, by layer: where, why and what to do; fails where a point is lost
	@cargo build -p hull
	@TESTS_MUST_RUN=1 cargo test -p hull-tests --test zoo -- --nocapture $(T)

# ROUNDS is the number of rounds of each race, and scales the rest: 500 mean 20,000 requests of the fuzzer and 10,000 pods of
# the soak. T selects tests as above: make adversary ROUNDS=2000 T=races. ADVERSARY_SEED=N repeats a run of the fuzzer, CYCLES=N
# sets the number of pods of the soak.
adversary: setup tools ## Attack Hull from containers, images, a registry and clients; every race 500 times
	@cargo build -p hull
	@ADVERSARY_ROUNDS=$(or $(ROUNDS),500) $(if $(CYCLES),ADVERSARY_CYCLES=$(CYCLES)) cargo test -p hull-tests --test escape -- $(T)

# Value tests: no root, no containers, no packages, no Go. Tests that need root are in the `tests` folders of
# crates; these three are there, too, and need none.
VALUES := --lib --bins --test tidy --test interface --test seeds

check: ## Format, clippy, tidy and the value tests: quick, without root
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo test -q --workspace $(VALUES)

lint: setup ## Format, clippy, tidy, dependencies (installs cargo-deny once), and arm64 if its Rust target is installed
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo test -q -p hull-tests --test tidy
	@scripts/deny
	@scripts/check-arm64

check-arm64: setup ## Check the code for arm64, if the Rust targets and a C compiler for it are installed
	@scripts/check-arm64

fmt: ## Format the code
	@cargo fmt --all

# Once for each version of Kubernetes, in minutes; it stays in .cache/kubernetes. Without Go, the tests that need it say so.
kubelet: setup ## Build the kubelet that some tests run, in the version of tests/kubernetes/kubernetes/go.mod
	@scripts/kubernetes kubelet > /dev/null || echo 'kubelet: not built; tests that need it will say so' >&2

tools: $(TOOLS)/critest $(TOOLS)/helm .cache/criu/criu ## Build crictl, critest, kubectl's streaming client and Helm, in the versions of tests/tools, and CRIU

$(TOOLS)/critest: tests/tools/go.mod tests/tools/go.sum tests/tools/kubeclient/main.go tests/tools/nriplugin/main.go tests/tools/grpcclient/main.go scripts/tools
	@scripts/tools "$(TOOLS)"

$(TOOLS)/helm: tests/tools/helm/go.mod tests/tools/helm/go.sum scripts/helm
	@scripts/helm "$(TOOLS)" > /dev/null || echo 'helm: not built; tests that need it will say so' >&2

.cache/criu/criu: scripts/criu
	@scripts/criu || echo 'criu: not built; tests that need it will say so' >&2

# MODE selects one mode: serial, websocket, parallel, handler. ARGS are for critest: ARGS=-ginkgo.focus=exec
conformance: setup tools ## Run all of critest against a fresh node, in every mode
	@cargo build -p hull
	@cargo build -p hull-tests --bin conformance
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/debug/hull" "$${CARGO_TARGET_DIR:-target}/debug/conformance" $(MODE) $(if $(ARGS),-- $(ARGS))

# A node with cgroup v2, systemd and AppArmor, in an emulated VM. KERNEL=oldest is the kernel of Debian 12. P selects
# test programs (make test-vm P="vm limits"), T tests; without them, all kernel and node tests run, and critest.
vm-programs: setup tools
	@cargo build -p hull
	@cargo build --workspace --bin conformance --bin power --bin fixtures --example soak
	@mkdir -p target/vm
	@cargo test --workspace --no-run --test '*' 2>&1 | tee target/vm/build.log | \
	  sed -n '/\/\(tidy\|interface\|quick\|seeds\|kubelet\|containerd\|upgrades\|packages\|chart\|installer\)-/d; s/^ *Executable .* (\(.*\))$$/\1/p' > target/vm/programs || { cat target/vm/build.log; false; }
	@target/debug/fixtures

test-vm: vm-programs ## Run the kernel and node tests in a VM, and critest; T=name as for test, P=program
	@failed=0; VM_PROGRAMS="$(P)" scripts/vm run suite $(T) || failed=1; \
	 $(if $(P)$(T),,scripts/vm run conformance serial || failed=1;) exit $$failed

conformance-vm: vm-programs ## Run critest in the VM, with systemd and AppArmor; MODE as above
	@scripts/vm run conformance $(or $(MODE),serial)

power-cuts: vm-programs ## Cut the power of the VM at random moments, and check its disk, N=50 times
	@scripts/vm cuts $(or $(N),50)

# The first call builds the releases that tests/upgrades/commits lists, in some minutes each; they stay in target/upgrades.
test-upgrades: setup ## Upgrade from earlier releases under running pods, and go back; T=name as for test
	@scripts/upgrades
	@cargo build -p hull
	@TESTS_MUST_RUN=1 cargo test -p hull-tests --test upgrades -- $(T)

# Not in CI, which has an hour on a machine where nothing is built yet.
nightly: ## Run what takes too long for every change: critest and power cuts in the VM, upgrades, the long attack, two releases
	@failed=0; \
	 $(MAKE) test-upgrades || failed=1; \
	 $(MAKE) reproducible || failed=1; \
	 VM_MAX=1800 $(MAKE) conformance-vm || failed=1; \
	 $(MAKE) power-cuts N=10 || failed=1; \
	 $(MAKE) adversary || failed=1; \
	 exit $$failed

# VM_APPEND is added to the kernel command line: KERNEL=oldest VM_APPEND=systemd.unified_cgroup_hierarchy=0 has cgroup v1.
bench-vm: build vm-programs ## Measure pods in the VM with each cgroup driver; ARGS for cri-bench
	@cargo build --release -p cri-bench
	@cargo build --workspace --bin bench_drivers
	@VM_HULL=target/release/hull scripts/vm run bench $(ARGS)

kind-node-vm: kind-image ## Boot the image of `make kind-image` in the VM, and run kind's commands in it
	@VM_MEMORY=$(or $(VM_MEMORY),4096) scripts/vm run kind-node

# NODES is the number of nodes beside that of the control plane.
kind-vm: kind-image ## Run kind in the VM, with podman and the image of `make kind-image`
	@scripts/kubernetes kind kubectl > /dev/null
	@tests/vm/build > /dev/null
	@tests/vm/kind/packages > /dev/null
	@VM_MEMORY=$(or $(VM_MEMORY),4096) VM_DISK=16G scripts/vm run kind $(NODES)

# Images and programs are built once. KUBEADM=keep ends before `kubeadm reset`.
kubeadm-vm: setup tools ## Set up a node by kubeadm in the VM with Hull's package, run pods and DNS, reset it
	@cargo build -p hull
	@scripts/kubernetes kubeadm kubelet kubectl > /dev/null
	@scripts/kubernetes-images > /dev/null
	@VM_MEMORY=$(or $(VM_MEMORY),4096) scripts/vm run kubeadm $(KUBEADM)

e2e-vm: setup tools ## Check memory QoS, swap, pressure, resize and AppArmor of pods in the VM, as a kubelet requests them
	@cargo build -p hull
	@scripts/kubernetes kubeadm kubelet kubectl > /dev/null
	@scripts/kubernetes-images > /dev/null
	@VM_MEMORY=$(or $(VM_MEMORY),4096) VM_APPEND=psi=1 scripts/vm run e2e

kind-image: build tools ## Make an image for the nodes of kind, with Hull as the runtime: target/kind/hull-node.tar
	@scripts/kind-image

vm: vm-programs ## Open a shell in the VM
	@scripts/vm shell

# A Kubernetes on this host, each node with its own Hull, in namespaces (docs/kubernetes.md). The first call builds
# Kubernetes. NODES=3, GATES="A=true,B=true", DUALSTACK=1, CNI=bridge or flannel, RUNTIME=containerd; K="get pods -A"
# runs kubectl in the cluster that runs. HULL_BIN names another build of Hull than the release.
CLUSTER = HULL_BIN="$${HULL_BIN:-$${CARGO_TARGET_DIR:-target}/release/hull}" "$${CARGO_TARGET_DIR:-target}/debug/cluster"

cluster: setup cluster-programs ## Start a Kubernetes cluster with Hull in namespaces, NODES=3; K="get pods -A" runs kubectl in it
ifdef K
	@$(CLUSTER) kubectl $(K)
else
	@$(CLUSTER) up --nodes $(or $(NODES),3) $(if $(GATES),--gates "$(GATES)") $(if $(DUALSTACK),--dual-stack) $(if $(CNI),--cni $(CNI)) $(if $(RUNTIME),--runtime $(RUNTIME))
endif

# containerd is only for comparing.
cluster-programs:
	@cargo build -q -p hull-tests --bin cluster
ifndef K
	@[ -n "$${HULL_BIN:-}" ] || cargo build --release -p hull
	@[ -z "$(findstring containerd,$(RUNTIME) $(RUNTIMES))" ] || scripts/baselines .cache/baselines runc containerd
endif

cluster-down: ## Remove the cluster of `make cluster`
	@cargo build -q -p hull-tests --bin cluster
	@$(CLUSTER) down

# RUNTIMES starts a cluster with each, one after another, ROUNDS times; without it the cluster that runs is measured.
cluster-bench: setup cluster-programs ## Measure pods on the cluster that runs, or compare: RUNTIMES="hull containerd" ROUNDS=1
	@$(CLUSTER) bench $(if $(RUNTIMES),--runtimes "$(RUNTIMES)" --rounds $(or $(ROUNDS),1) --nodes $(or $(NODES),3))

# FOCUS and SKIP are regular expressions of names of specs, PROCS is how many run at the same time. A whole run writes
# its section of docs/conformance-kubernetes.md.
E2E_RESULTS = --document docs/conformance-kubernetes.md

e2e: cluster ## Run Kubernetes' own conformance specs on a cluster; FOCUS=, SKIP=, PROCS=4
	@$(CLUSTER) e2e --processes $(or $(PROCS),4) $(if $(FOCUS),--focus '$(FOCUS)') $(if $(SKIP),--skip '$(SKIP)') $(if $(FOCUS)$(SKIP),,$(E2E_RESULTS))
	@$(CLUSTER) down

runtime-classes: cluster ## Run pods of RuntimeClasses on a cluster
	@$(CLUSTER) runtime-classes
	@$(CLUSTER) down

e2e-gates: setup cluster-programs ## Run the specs of each feature gate that concerns a runtime; GATE= names one, PROCS=4
	@$(CLUSTER) gates --processes $(or $(PROCS),4) $(if $(GATE),--only '$(GATE)',$(E2E_RESULTS))

# Without FOCUS: the suite's own specs that neither need a node for themselves nor take long.
e2e-node: setup cluster-programs ## Run Kubernetes' suite for one node, with its own kubelet; FOCUS=, SKIP=, PROCS=4, GATES=
	@$(CLUSTER) e2e-node --processes $(or $(PROCS),4) $(if $(FOCUS),--focus '$(FOCUS)',$(E2E_RESULTS)) --skip '$(or $(SKIP),$(if $(FOCUS),^$$,\[(Serial|Slow|Disruptive|Flaky)\]|OffByDefault))' $(if $(GATES),--gates "$(GATES)")

# SECONDS is the time of each target; T selects targets: make fuzz SECONDS=600 T="spdy headers"
fuzz: setup ## Fuzz every parser of input from outside (needs nightly and cargo-fuzz)
	@SECONDS_EACH=$(or $(SECONDS),60) scripts/fuzz $(T)

# ARGS are for cri-bench: ARGS=--quick, ARGS="--only pods,exec --label Hull"; docs/bench.md lists them.
bench: build ## Measure Hull beside the runtimes that `make baselines` installed
	@cargo build --release -p cri-bench
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/side-by-side" $(ARGS)

baselines: setup ## Build or install the runtimes that `make bench` compares with
	@scripts/baselines

criu: ## Build CRIU into .cache/criu, for checkpoints where that of the distribution is too old
	@scripts/criu

# IMAGES is the number of images; ADVERSARY_SEED repeats a run with others.
compare-images: setup ## Pull 300 images with Hull and with containerd, and compare their trees; needs `make baselines`
	@IMAGES=$(or $(IMAGES),300) TESTS_MUST_RUN=1 cargo test -p hull-image --test containerd -- --nocapture

migrate-containerd: build ## Change a node with images of a real containerd to Hull; needs `make baselines`
	@TESTS_MUST_RUN=1 cargo test -p hull-tests --test migrate_containerd -- --nocapture

bench-oci: build ## Measure `hull oci` beside runc and crun, if they are installed
	@cargo build --release -p hull-tests --bin oci_bench
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/oci_bench" $(ARGS)

# ENGINES="podman docker containerd"; Debian's packages of them are installed if they are missing.
oci-interop: build ## Run podman, docker and containerd with `hull oci` as their runtime; ENGINES=docker
	@scripts/oci-interop $(ENGINES)

bench-pull: build ## Measure pulls: time, CPU, disk, memory
	@cargo build --release -p hull-tests --bin bench_pull
	@HULL_BIN="$${CARGO_TARGET_DIR:-target}/release/hull" "$${CARGO_TARGET_DIR:-target}/release/bench_pull" $(ARGS)

deb: build ## Build a Debian package of the release binary, in target/debian
	@scripts/deb

book: setup ## Build the docs as a book with search, in target/book (installs mdBook once)
	@scripts/book

rpm: build ## Build an rpm package of the release binary, in target/rpm (needs Debian's package rpm)
	@scripts/rpm

# ARCHES="x86_64" leaves arm64 out, which needs gcc-aarch64-linux-gnu and libc6-dev-arm64-cross; jq and rpm are needed.
release: setup ## Build deb, rpm, static tarball, installer image, chart, SBOM and checksums for x86-64 and arm64
	@scripts/release

check-packages: ## Check the packages of `make release` with lintian and rpmlint
	@scripts/check-packages

reproducible: setup ## Build the release twice, in two directories, and compare every byte; WHAT=programs for a quick part
	@scripts/reproducible $(or $(WHAT),release)

sbom: ## Write the bill of materials (CycloneDX), target/hull.cdx.json
	@scripts/sbom target/hull.cdx.json

install: build ## Install the binary into PREFIX/bin
	@install -D -m 0755 "$${CARGO_TARGET_DIR:-target}/release/hull" "$(DESTDIR)$(PREFIX)/bin/hull"
	@echo "installed $(DESTDIR)$(PREFIX)/bin/hull; try: hull check"

uninstall: ## Remove the installed binary
	@rm -f "$(DESTDIR)$(PREFIX)/bin/hull"

clean: ## Remove all build results
	@cargo clean
	@rm -rf .cache
