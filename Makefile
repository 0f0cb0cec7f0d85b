# `make up` runs the service, `make test` runs all checks, `make help` lists the other targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# rustup's directory, for shells opened before Rust was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

# PostgreSQL is not installed if the settings name a database.
POSTGRESQL := $(if $(DATABASE_URL)$(POSTGRES_HOST),,postgresql)
# What a Rust build needs besides Rust: a linker, and a C compiler for the TLS and allocator libraries.
BUILD_PACKAGES := gcc libc6-dev
# curl is for the example commands that `make up` prints.
UP_PACKAGES := nginx supervisor curl $(POSTGRESQL) $(BUILD_PACKAGES)
TEST_PACKAGES := nginx supervisor openssl curl postgresql redis-server libfaketime python3-venv chromium $(BUILD_PACKAGES)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

.PHONY: up
up: cargo ## build and run everything on http://localhost:8080 until Ctrl-C (HTTP_PORT, HTTPS_PORT, METRICS_PORT, DATA_DIR)
	@scripts/install-packages $(UP_PACKAGES)
	@scripts/up check
	@cargo build --release
	@scripts/up

.PHONY: test
test: cargo ## run every check and test
	@scripts/install-packages $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory .venv/installed
	@scripts/test $(TEST_TARGETS)

.PHONY: test-repeat
test-repeat: cargo ## run the Rust tests N times on a loaded machine (N, 50 unless set)
	@scripts/test-repeat $(or $(N),50)

# The Python packages of the tests, reinstalled only when the pinned versions change.
.venv/installed: tests/requirements.txt
	@/usr/bin/python3 -m venv --clear .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: cargo
cargo:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it as https://rustup.rs says, then try again" >&2; exit 1; }

# The included files define further targets, and add those that `make test` runs to TEST_TARGETS.
-include make/*.mk
