# Mutation testing with cargo-mutants (.cargo/mutants.toml, prove/mutants.toml).

CARGO_MUTANTS_VERSION := 27.1.0
# Installed below target rather than into ~/.cargo/bin.
CARGO_MUTANTS = target/cargo-mutants-$(CARGO_MUTANTS_VERSION)/bin/cargo-mutants

.PHONY: mutants
mutants: cargo ## change a sample of expressions, one at a time, and count the changes that the tests detect (SAMPLE, 40; SEED; ONLY=group; MINUTES; RETRY=1)
	@scripts/install-packages nginx openssl postgresql redis-server $(BUILD_PACKAGES)
	@$(MAKE) --no-print-directory $(CARGO_MUTANTS)
	@scripts/mutants $(CARGO_MUTANTS) --sample $(or $(SAMPLE),40) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(RETRY),--retry) $(if $(BASELINE),--baseline $(BASELINE))

# Not optimized: it spends nearly all of its time waiting for the compiler and the tests.
$(CARGO_MUTANTS):
	@cargo install --quiet --debug --locked --root $(@D)/.. --version $(CARGO_MUTANTS_VERSION) cargo-mutants
