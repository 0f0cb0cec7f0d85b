# Simulated schedules in one process, with tokio's paused clock and a PostgreSQL in memory (src/simulation/).

SCHEDULES ?= 10000

.PHONY: simulate
simulate: cargo ## check batches, pool, turns and budgets under many simulated schedules (SCHEDULES; SEED, 1 unless set)
	@SCHEDULES=$(SCHEDULES) SEED=$(or $(SEED),1) cargo test --quiet --lib simulation:: -- --nocapture
