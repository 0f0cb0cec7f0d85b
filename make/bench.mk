# Benchmarks. bench/results.md holds the results; only a full run rewrites it.

TEST_TARGETS += bench-gate

.PHONY: bench
bench: ## measure against peers, pgbench and psql and write bench/results.md (QUICK=1: 3 minutes, into var/bench)
	@python3 bench/run.py $(if $(QUICK),--quick) $(BENCH_FLAGS)

.PHONY: bench-gate
bench-gate: ## compare instructions per request with the baseline (ACCEPT=1 makes the measurement the new baseline)
	@python3 bench/gate.py $(if $(ACCEPT),--accept)
