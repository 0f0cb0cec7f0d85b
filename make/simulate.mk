# Schedules in one process, on tokio's paused clock and a PostgreSQL in memory (src/simulation/).

SCHEDULES ?= 10000

.PHONY: simulate
simulate: cargo ## hold batches, pool, turns and budgets to their promises under many schedules (SCHEDULES, SEED, 1 unless set)
	@SCHEDULES=$(SCHEDULES) SEED=$(or $(SEED),1) cargo test --quiet --lib simulation:: -- --nocapture
