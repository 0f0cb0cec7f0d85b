# Promises under failure, counted on real stacks that are broken meanwhile.

TEST_TARGETS += prove-short

# What scenarios ask for besides; see prove/run.py and the top of each scenario.
PROVE_NUMBERS = $(foreach name,WRITES ROWS RATE EPISODE TOGETHER SLOW WATCH,$(if $($(name)),$(name)=$($(name))))
PROVE = python3 prove/run.py $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault "$(FAULT)") $(if $(PUBLISH),--publish) $(PROVE_NUMBERS)
# redis-server and libfaketime are for two kinds of faults, wrk for overload.
PROVE_PACKAGES := $(UP_PACKAGES) postgresql redis-server libfaketime wrk

.PHONY: prove
prove: ## break real stacks and count what became of each promise, into var/prove (MINUTES, 3; SEED; ONLY=name,name; FAULT; PUBLISH=1)
	@scripts/install-packages $(PROVE_PACKAGES)
	@cargo build --release
	@$(PROVE) $(if $(ONLY),--only $(ONLY)) --minutes $(or $(MINUTES),3)

.PHONY: prove-short
prove-short: ## the same in three minutes
	@scripts/install-packages $(PROVE_PACKAGES)
	@cargo build --release
	@$(PROVE) $(if $(ONLY),--only $(ONLY)) --short

.PHONY: soak
soak: ## the same load for long, and whether memory, descriptors, connections and tables stay level (MINUTES, 120)
	@scripts/install-packages $(PROVE_PACKAGES)
	@cargo build --release
	@$(PROVE) --only soak --minutes $(or $(MINUTES),120)
