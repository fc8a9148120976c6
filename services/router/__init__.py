"""The router: which pool, which lane? After its answer the task cannot be lost.

Owns the claim of each task (`t:{id}:ctl`), the choice of the pool and the record in Kafka. Never holds a task in memory once
the produce returned, and never decides when a task runs.

    core/routes.py       which pool: weights, fallback
    core/shedding.py     when a pool has too much to do, and when to come back
    acceptance.py        one submission: plan, claim, produce, or log a known answer
    ports.py             TaskSink, PoolSignals (TaskControl, TokenLog and UsageLog are services/tasklog's)
    adapters/            Kafka, the dispatchers' signals, memory
    servicer.py          millrace.router.v1.Router
"""
