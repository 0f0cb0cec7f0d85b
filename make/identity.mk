# Access tokens of a real identity provider, tested with a complete stack.

TEST_TARGETS += test-identity

.PHONY: test-identity
test-identity: identity/node_modules/installed ## sign in at a certified OpenID provider, in Chromium too, and use its access tokens
	@scripts/install-packages nodejs chromium
	@$(MAKE) --no-print-directory .venv/installed
	@.venv/bin/python -m pytest tests/identity

identity/node_modules/installed: identity/package-lock.json
	@scripts/install-packages nodejs npm
	@npm ci --prefix identity --no-audit --no-fund --silent
	@touch $@
