"""The pools library: what every service must agree on about a pool of workers.

It owns the names of a pool's lanes and who finds its owner how. It never decides what runs; the dispatcher does.

* `core/lanes.py`: topics, classes and the consumer group of a pool
* `core/ownership.py`: the owner's lease as it stands in Redis
* `owner_lookup.py`: who owns a pool now?
* `topics.py`: the lanes made in Kafka, for the command line and the operator
* `signals_listener.py`: a pool's work and positions, pushed by its owner; cancels told to it
"""
