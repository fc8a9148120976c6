"""The operator: custom resources in; a snapshot for the services, and pools of workers that follow their work, out.

Owns the schema of the custom resources, the compiler that makes the services' snapshot of them, the objects of a pool and the
number of its workers. Never on the path of a request: services keep the last snapshot they saw, and workers run without it.

Read in this order:

* `core/schema.py`, `core/worker_pool.py`, written with `core/declare.py`: the custom resources; `core/definitions.py`: their CRDs
* `core/snapshot.py`, `core/selection.py`: what the services read, and what of it is in force when something is wrong
* `core/scaling.py`, `core/need.py`: the control law, in the words of `core/vocabulary.py`; `core/learning.py`, `core/holds.py`: what
  it knows from experience; `core/decide.py`: the decision and its sentence
* `core/desired.py`: the objects of a pool; `core/draining.py`, `core/victims.py`: which workers leave; `core/leaving.py`: when all of
  them do, because the pool is deleted
* `core/pods.py`, `core/troubles.py`, `core/conditions.py`, `core/reasons.py`: what is seen and told
* `store.py`: what the API server holds, as told by `adapters/watching.py`; `ports.py` and `adapters/`: everything outside
* `pools.py`, `pool_keeper.py`: pools kept; `pool_report.py`: what people read of one; `publishing.py`: the snapshot kept; `samples.py`
* `leadership.py`: who acts; `leaders_cluster.py`: nobody else writes
* `offline.py`: publishes from folders of manifests, for a stack without Kubernetes; `crds.py`: writes the CRDs
"""
