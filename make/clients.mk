# Test of a client generated from the OpenAPI document against a complete stack.

TEST_TARGETS += test-clients

.PHONY: test-clients
test-clients: .venv/clients/installed ## generate a Python client from the OpenAPI document, and use it
	@.venv/clients/bin/python -m pytest tests/clients

# A separate environment, because the generator depends on two dozen packages that nothing else needs.
.venv/clients/installed: tests/clients/requirements.txt
	@scripts/install-packages python3-venv
	@/usr/bin/python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
