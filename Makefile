# The front door: thin targets over cargo and the tests crate; no logic lives here.

export PATH := $(HOME)/.cargo/bin:$(HOME)/.cache/castiron/bin:$(PATH)

RELEASE := target/x86_64-unknown-linux-gnu/release

.PHONY: all setup demo test unit machines bench lint appliance clean

all:
	cargo build --release

setup:
	tests/setup.sh

# From an empty disk to a login, in a virtual machine.
demo: setup
	cargo build --release
	$(RELEASE)/demo

# Units, golden and replayed cases, devices, the harness with its virtual machines.
test: setup
	cargo build --release
	cargo test --release --workspace --no-fail-fast

# The tests that need no virtual machine.
unit:
	cargo test --release --workspace --exclude castiron-tests

# Machines that install themselves, with and without faults.
machines: setup
	cargo build --release
	cargo test --release --workspace --test bootstrap --test machines

# Our bootstrap against mmdebstrap and debootstrap; also writes target/bench.json.
bench: setup
	cargo build --release
	$(RELEASE)/bench

lint:
	tests/setup.sh lint
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo deny check licenses bans sources

appliance: all
	$(RELEASE)/castiron appliance --board x86_64 -o target/appliance

clean:
	cargo clean
