# Requests generated from the OpenAPI document, sent to a complete stack.

TEST_TARGETS += test-fuzz

.PHONY: test-fuzz
test-fuzz: .venv/fuzz/installed ## send requests generated from the OpenAPI document and check every answer against it
	@.venv/fuzz/bin/python -m pytest tests/fuzz

.PHONY: fuzz
fuzz: .venv/fuzz/installed ## the same with many more, random requests (EXAMPLES, 500 per operation and phase; SEED)
	@cargo build --release
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),500) FUZZ_SEED=$(SEED) .venv/fuzz/bin/python -m pytest -s tests/fuzz

# A separate environment, because schemathesis depends on two dozen packages that nothing else needs.
.venv/fuzz/installed: tests/fuzz/requirements.txt
	@scripts/install-packages python3-venv
	@/usr/bin/python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
