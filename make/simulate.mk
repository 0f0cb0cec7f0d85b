# Simulated schedules in one process, with tokio's paused clock and a PostgreSQL in memory (src/simulation/).

SCHEDULES ?= 10000
SEED ?= 1

.PHONY: simulate
simulate: cargo ## check batches, pool, turns and budgets under many simulated schedules (SCHEDULES, SEED)
	@SCHEDULES=$(SCHEDULES) SEED=$(SEED) cargo test --quiet --lib simulation:: -- --nocapture
