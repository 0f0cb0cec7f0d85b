# Requests made up from the OpenAPI document, against a whole stack.

TEST_TARGETS += test-fuzz

.PHONY: test-fuzz
test-fuzz: .venv/fuzz/installed ## send requests made up from the OpenAPI document, and compare every answer with it
	@.venv/fuzz/bin/python -m pytest tests/fuzz

.PHONY: fuzz
fuzz: .venv/fuzz/installed ## the same with other requests each time, and many more (EXAMPLES, 500 an operation and phase; SEED)
	@cargo build --release
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),500) FUZZ_SEED=$(SEED) .venv/fuzz/bin/python -m pytest -s tests/fuzz

# Apart from .venv, because schemathesis brings two dozen packages that nothing else needs.
.venv/fuzz/installed: tests/fuzz/requirements.txt
	@scripts/install-packages python3-venv
	@/usr/bin/python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
