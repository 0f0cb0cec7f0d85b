# Promises of the service, checked on real stacks under injected faults.

TEST_TARGETS += prove-short

# Parameters of scenarios; see prove/run.py and the docstring of each scenario.
PROVE_NUMBERS = $(foreach name,WRITES ROWS RATE EPISODE TOGETHER SLOW WATCH OPERATIONS CONNECTIONS EVERY SEARCH,$(if $($(name)),$(name)=$($(name))))
PROVE = python3 prove/run.py $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault "$(FAULT)") $(if $(PUBLISH),--publish) $(PROVE_NUMBERS)
# redis-server and libfaketime are required by some faults, wrk by the scenario overload.
PROVE_PACKAGES := $(UP_PACKAGES) postgresql redis-server libfaketime wrk
# The service, and the load of the scenario volume.
PROVE_BUILD = cargo build --release && cargo build --release --locked --quiet --manifest-path prove/load/Cargo.toml --target-dir var/prove/target

.PHONY: prove
prove: ## inject faults into real stacks and check each promise; report in var/prove (MINUTES, 3; SEED; ONLY=name,name; FAULT; PUBLISH=1)
	@scripts/install-packages $(PROVE_PACKAGES)
	@$(PROVE_BUILD)
	@$(PROVE) $(if $(ONLY),--only $(ONLY)) --minutes $(or $(MINUTES),3)

.PHONY: prove-short
prove-short: ## the short form, in three minutes
	@scripts/install-packages $(PROVE_PACKAGES)
	@$(PROVE_BUILD)
	@$(PROVE) $(if $(ONLY),--only $(ONLY)) --short

.PHONY: soak
soak: ## run constant load for long and check that memory, descriptors, connections and tables stay level (MINUTES, 120)
	@scripts/install-packages $(PROVE_PACKAGES)
	@cargo build --release
	@$(PROVE) --only soak --minutes $(or $(MINUTES),120)
