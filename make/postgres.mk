# The statements whose plans, locks and orders depend on PostgreSQL, against a newer release than Debian's.

TEST_TARGETS += test-postgres-17

# Of tests/api, by the names of its modules.
POSTGRES_TESTS = plans:: growth:: deadlocks:: preconditions:: lists::pages:: roles::

.PHONY: test-postgres-17
test-postgres-17: cargo ## run the tests of statements and plans against PostgreSQL 17
	@PG_BIN=$$(scripts/fetch-postgres) && export PG_BIN && cargo test --test api -- $(POSTGRES_TESTS)
