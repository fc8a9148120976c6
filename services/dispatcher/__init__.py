"""The dispatcher: whose turn is it?

It owns, for each pool whose lease it holds: the queue and its order, credits, attempts, the offsets of the pool's lanes, the
end of tasks that no worker will run, and the pool's signal. It never talks to clients or engines, and it keeps nothing that the
next owner could not read from Kafka, Redis and the workers.

One process serves all pools: it owns those whose lease it gets and stands by for the others, so two dispatchers are each other's
standby.

Read in this order:

* `core/scheduler.py`: who gets which task, and what becomes of what workers say
* `core/task_table.py`, `core/task_state.py`, `core/decisions.py`: a task from its record to its end
* `core/fair_queue.py`: whose turn it is; `core/work.py`, `core/positions.py`, `core/pool_signal.py`: how long it takes
* `core/roster.py`, `core/attempts.py`, `core/epoch.py`: workers, attempts and what outranks what
* `core/offsets.py`, `core/commit_horizon.py`, `core/deadlines.py`, `core/followers.py`, `core/read_ahead.py`
* `ports.py` and `adapters/`: lanes in Kafka, leases in Redis, both in memory
* `pool_actor.py`: standing by and owning; `pool_owner.py`: one ownership, made of `intake.py`, `closing.py`, `commits.py`,
  `worker_streams.py` and `signal_board.py`, which share `ownership.py`
* `servicer.py`: the streams of workers and listeners; `main.py`: the wiring
"""
