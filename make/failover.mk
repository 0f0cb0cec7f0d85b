# Failover of PostgreSQL: Patroni, etcd and a synchronous standby; the primary is killed while clients write.

TEST_TARGETS += test-failover

FAILOVER_PACKAGES = postgresql etcd-server nginx supervisor python3-venv

.PHONY: test-failover
test-failover: .venv/failover/installed ## kill, pause and replace the primary of a Patroni cluster while clients write
	@scripts/install-packages $(FAILOVER_PACKAGES)
	@.venv/failover/bin/python -m pytest tests/failover

.PHONY: failover
failover: cargo .venv/failover/installed ## the same with more faults, chosen by a seed (FAULTS, 30 unless set; SEED)
	@scripts/install-packages $(FAILOVER_PACKAGES)
	@cargo build --release
	@FAILOVER_FAULTS=$(or $(FAULTS),30) FAILOVER_SEED=$(SEED) .venv/failover/bin/python -m pytest -s tests/failover

# A separate environment, because Patroni depends on a dozen packages that nothing else needs.
.venv/failover/installed: tests/failover/requirements.txt
	@scripts/install-packages python3-venv
	@/usr/bin/python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
