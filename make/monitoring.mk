# Monitoring of the service: rules, dashboards and log pipelines, tested on a real stack.

TEST_TARGETS += test-monitoring

MONITORING_PACKAGES = nginx supervisor openssl postgresql redis-server prometheus prometheus-alertmanager prometheus-postgres-exporter \
	prometheus-nginx-exporter prometheus-blackbox-exporter prometheus-node-exporter rsyslog rsyslog-relp lua5.4

.PHONY: monitoring
monitoring: .venv/monitoring/installed ## write the dashboards and the operator's rules from their sources
	@.venv/monitoring/bin/python monitoring/dashboards/dashboards.py
	@.venv/monitoring/bin/python monitoring/prometheus/prometheus_rule.py

.PHONY: monitoring-pictures
monitoring-pictures: .venv/monitoring/installed ## draw the dashboards of a loaded stack into docs/monitoring
	@scripts/install-packages $(MONITORING_PACKAGES)
	@.venv/monitoring/bin/python tests/monitoring/pictures.py

.PHONY: test-monitoring
test-monitoring: .venv/monitoring/installed ## break a monitored stack: every alert is delivered, every panel has data, no log line is lost
	@scripts/install-packages $(MONITORING_PACKAGES)
	@.venv/monitoring/bin/python -m pytest tests/monitoring

# A separate environment, because nothing else needs Grafana's builders and matplotlib.
.venv/monitoring/installed: tests/monitoring/requirements.txt
	@scripts/install-packages python3-venv
	@/usr/bin/python3 -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
