# Tests with releases of PostgreSQL other than Debian's.

TEST_TARGETS += test-postgres-17

# Modules of tests/api.
POSTGRES_TESTS = plans:: growth:: deadlocks:: preconditions:: lists::pages:: roles::
POSTGRES_VERSIONS ?= 14 15 16 17 18

# Runs tests/api on a release. The cluster of the tests belongs to one release, so that of another release is removed first.
define test_on_postgres
PG_BIN=$$(scripts/fetch-postgres $(1)) && export PG_BIN \
	&& rm -rf "$${CARGO_TARGET_DIR:-target}/tmp/api-pg-bin" && cargo test --test api -- $(2)
endef

.PHONY: test-postgres-17
test-postgres-17: cargo ## run the tests of statements and plans on PostgreSQL 17
	@$(call test_on_postgres,17,$(POSTGRES_TESTS))

.PHONY: test-postgres-versions
test-postgres-versions: cargo ## run the whole API suite on each release of PostgreSQL (POSTGRES_VERSIONS, 14 to 18)
	@for version in $(POSTGRES_VERSIONS); do \
		echo "== PostgreSQL $$version"; $(call test_on_postgres,$$version,) || exit; \
	done
