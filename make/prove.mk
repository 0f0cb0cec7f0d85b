# Promises under failure, counted on real stacks that are broken meanwhile.

TEST_TARGETS += prove-short

# What scenarios ask for besides; see prove/run.py.
PROVE_NUMBERS = $(foreach name,WRITES ROWS,$(if $($(name)),$(name)=$($(name))))
PROVE = python3 prove/run.py $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) $(PROVE_NUMBERS)

.PHONY: prove
prove: ## break real stacks and count what became of each promise, into var/prove (MINUTES, 3; SEED; ONLY=name,name)
	@scripts/install-packages $(UP_PACKAGES) postgresql
	@cargo build --release
	@$(PROVE) --minutes $(or $(MINUTES),3)

.PHONY: prove-short
prove-short: ## the same in two minutes or three
	@scripts/install-packages $(UP_PACKAGES) postgresql
	@cargo build --release
	@$(PROVE) --short
