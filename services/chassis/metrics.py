"""Every metric of Millrace: one place, so that a name means one thing.

Sections by service. Label values are bound where the metric is used, not on hot paths. No tenant label on histograms.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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

# -- rate limiter -------------------------------------------------------------------------------------------------------
limiter_decisions = Counter(
    "millrace_limiter_decisions_total",
    "Requests decided, by verdict: allowed or limited.",
    ["verdict"],
    registry=REGISTRY,
)
limiter_batch_seconds = Histogram(
    "millrace_limiter_batch_seconds",
    "Time to decide one batch of requests, Redis included.",
    registry=REGISTRY,
    buckets=LATENCY_BUCKETS,
)

# -- cache --------------------------------------------------------------------------------------------------------------
cache_lookups = Counter(
    "millrace_cache_lookups_total", "Lookups, by what was found: hit, joined or miss.", ["found"], registry=REGISTRY
)
cache_stores = Counter(
    "millrace_cache_stores_total",
    "Ends of flights, by what became of them: stored or dropped.",
    ["result"],
    registry=REGISTRY,
)
cache_batch_seconds = Histogram(
    "millrace_cache_batch_seconds",
    "Time to look up one batch, Redis included.",
    registry=REGISTRY,
    buckets=LATENCY_BUCKETS,
)

# -- router -------------------------------------------------------------------------------------------------------------
router_accepts = Counter(
    "millrace_router_accepts_total",
    "Answers to submissions: accepted, repeated, cached, joined, or the code of the refusal.",
    ["result"],
    registry=REGISTRY,
)
router_accept_seconds = Histogram(
    "millrace_router_accept_seconds",
    "Time from a submission to its answer.",
    registry=REGISTRY,
    buckets=LATENCY_BUCKETS,
)
router_produce_seconds = Histogram(
    "millrace_router_produce_seconds",
    "Time from the produce to the broker's commit.",
    registry=REGISTRY,
    buckets=LATENCY_BUCKETS,
)

# -- worker -------------------------------------------------------------------------------------------------------------
worker_slots = Gauge("millrace_worker_slots", "Tasks this worker runs at once.", registry=REGISTRY)
worker_active = Gauge("millrace_worker_active_tasks", "Tasks the engine works on now.", registry=REGISTRY)
worker_held = Gauge("millrace_worker_held_texts", "Texts kept in memory until their end is durable.", registry=REGISTRY)
worker_tick = Gauge(
    "millrace_worker_tick_seconds", "How long text gathers before it is logged and sent.", registry=REGISTRY
)
worker_flush_entries = Histogram(
    "millrace_worker_flush_entries",
    "Entries logged in one pipeline.",
    registry=REGISTRY,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
worker_tokens = Counter("millrace_worker_tokens_total", "Completion tokens the engine gave.", registry=REGISTRY)
worker_attempts = Counter(
    "millrace_worker_attempts_total",
    "Attempts, by how they settled: logged, fenced, lost, failed or handed_back.",
    ["settled"],
    registry=REGISTRY,
)
worker_engine_faults = Counter(
    "millrace_worker_engine_faults_total",
    "Engine faults, by what follows: retry_elsewhere, continue_elsewhere, away, fatal or stalled.",
    ["kind"],
    registry=REGISTRY,
)
worker_frames_dropped = Counter(
    "millrace_worker_frames_dropped_total",
    "Batches of live frames dropped because their gateway was away or slow; readers get the text from the log.",
    registry=REGISTRY,
)

# -- gateway ------------------------------------------------------------------------------------------------------------
gateway_sessions = Gauge("millrace_gateway_sessions", "Open WebSocket sessions.", registry=REGISTRY)
gateway_readers = Gauge("millrace_gateway_readers", "Readers of unfinished tasks, all transports.", registry=REGISTRY)
gateway_ack_seconds = Histogram(
    "millrace_gateway_ack_seconds",
    "Time from reading a prompt to its acknowledgment, the commit in Kafka included.",
    registry=REGISTRY,
    buckets=LATENCY_BUCKETS,
)
gateway_ttft = Histogram(
    "millrace_gateway_ttft_seconds",
    "Time from reading a prompt to its first text.",
    registry=REGISTRY,
    buckets=LATENCY_BUCKETS,
)
gateway_refusals = Counter(
    "millrace_gateway_refusals_total", "Prompts refused, by error code.", ["code"], registry=REGISTRY
)
gateway_frames = Counter("millrace_gateway_frames_total", "Live frames received from workers.", registry=REGISTRY)
gateway_stale_batches = Counter(
    "millrace_gateway_stale_batches_total",
    "Batches dropped because they were for an earlier process.",
    registry=REGISTRY,
)
gateway_gaps = Counter(
    "millrace_gateway_gaps_total", "Live frames that did not connect, so that the log was read.", registry=REGISTRY
)
gateway_watchdog_repairs = Counter(
    "millrace_gateway_watchdog_repairs_total",
    "Text or ends that no frame told, found by the watchdog.",
    registry=REGISTRY,
)
gateway_slow_readers = Counter(
    "millrace_gateway_slow_readers_total", "Times a full client was left to the log.", registry=REGISTRY
)
gateway_local_limits = Counter(
    "millrace_gateway_local_limits_total",
    "Requests that this gateway limited by itself because the limiter was away.",
    registry=REGISTRY,
)

# -- dispatcher ---------------------------------------------------------------------------------------------------------
dispatcher_owned = Gauge(
    "millrace_dispatcher_pool_owned",
    "1 while this process owns the pool, 0 while it stands by.",
    ["pool"],
    registry=REGISTRY,
)
dispatcher_work = Gauge(
    "millrace_dispatcher_work_seconds", "Estimated service time waiting or running.", ["pool"], registry=REGISTRY
)
dispatcher_waiting = Gauge(
    "millrace_dispatcher_waiting_tasks",
    "Tasks that wait for their turn.",
    ["pool", "priority_class"],
    registry=REGISTRY,
)
dispatcher_slots = Gauge(
    "millrace_dispatcher_slots", "Slots of the attached workers.", ["pool", "state"], registry=REGISTRY
)
dispatcher_records = Counter(
    "millrace_dispatcher_records_total",
    "Records read from the lanes: first of a task, or repeated.",
    ["pool", "kind"],
    registry=REGISTRY,
)
dispatcher_attempts = Counter(
    "millrace_dispatcher_attempts_total",
    "Attempts given to workers: the first of a task, or a later one.",
    ["pool", "kind"],
    registry=REGISTRY,
)
dispatcher_workers_lost = Counter(
    "millrace_dispatcher_workers_lost_total",
    "Workers that fell silent with or without tasks.",
    ["pool"],
    registry=REGISTRY,
)
dispatcher_ends = Counter(
    "millrace_dispatcher_ends_total",
    "Tasks ended here, without a worker, by finish reason.",
    ["pool", "reason"],
    registry=REGISTRY,
)
dispatcher_dead = Counter(
    "millrace_dispatcher_dead_total", "Tasks buried after their last attempt.", ["pool"], registry=REGISTRY
)
dispatcher_moved = Counter(
    "millrace_dispatcher_moved_total",
    "Records produced again so that they hold up no commit.",
    ["pool"],
    registry=REGISTRY,
)
dispatcher_commit_lag = Gauge(
    "millrace_dispatcher_commit_lag_records",
    "Records read and not below the committed offset.",
    ["pool"],
    registry=REGISTRY,
)
dispatcher_wait_seconds = Histogram(
    "millrace_dispatcher_wait_seconds",
    "Time from the reading of a record to the task's first assignment.",
    ["pool"],
    registry=REGISTRY,
    buckets=LATENCY_BUCKETS,
)

# -- operator -----------------------------------------------------------------------------------------------------------
operator_leads = Gauge(
    "millrace_operator_leads", "1 while this process leads, 0 while it stands by.", registry=REGISTRY
)
operator_replicas = Gauge(
    "millrace_operator_replicas",
    "Workers of a pool, by state: desired, ready. Only the leader tells.",
    ["pool", "state"],
    registry=REGISTRY,
)
operator_decisions = Counter(
    "millrace_operator_decisions_total",
    "Other numbers of workers ordered, by direction, up or down, and by the bound that held them: none, maxReplicas, ...",
    ["pool", "direction", "bound"],
    registry=REGISTRY,
)
operator_steps = Counter(
    "millrace_operator_steps_total", "Looks at a pool, by how they ended: done, refused, failed.", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip
operator_step_seconds = Histogram(
    "millrace_operator_step_seconds", "How long a look at a pool takes, calls of the API server included.",
    registry=REGISTRY,
)  # fmt: skip
