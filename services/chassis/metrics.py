"""Every metric of Millrace: one place, so that a name means one thing.

Sections by service. Label values are bound where the metric is used, not on hot paths. No tenant label on histograms.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

REGISTRY = CollectorRegistry()

# Seconds; fine where our bars lie (10 ms to 2 s).
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

# -- every service ------------------------------------------------------------------------------------------------------
loop_busy = Gauge("millrace_loop_busy_ratio", "Share of the event loop's time spent working.", registry=REGISTRY)
loop_stalls = Counter(
    "millrace_loop_stalls_total", "Times the event loop was held for more than 50 ms.", registry=REGISTRY
)
config_age = Gauge(
    "millrace_config_age_seconds", "Seconds since the configuration was last seen at its source.", registry=REGISTRY
)
