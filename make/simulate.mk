# Schedules in one process, on tokio's paused clock and a PostgreSQL in memory (src/simulation/).

SCHEDULES ?= 10000
SEED ?= 1

.PHONY: simulate
simulate: cargo ## hold batches, pool, turns and budgets to their promises under many schedules (SCHEDULES, SEED)
	@SCHEDULES=$(SCHEDULES) SEED=$(SEED) cargo test --quiet --lib simulation:: -- --nocapture
