"""The token log library: what every service must agree on, to the byte, about the answer of a task.

It owns the shape of a task's log, the rule by which a new attempt fences the old ones and finds its place, the rule by which
a reader slices what it gets, and the last steps of a task. It never decides which attempt comes next, and never talks to
clients or engines.

Read in this order:

* `core/entries.py`: what a log consists of; `core/keys.py`, `core/ids.py`: how it is named
* `core/beginning.py`: where a new attempt begins; `core/reading.py`: what a reader shows
* `core/outcomes.py`: how an end is put into words; `core/control.py`: what is known of a task beside its text
* `core/codec.py`: entries as fields of a Redis stream
* `ports.py`: what the users of a log need; `adapters/`: Redis, Kafka, the cache service, and memory for tests
* `ending.py`: the end routine, shared by worker, dispatcher and router
"""
