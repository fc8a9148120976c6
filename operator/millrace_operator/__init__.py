"""Configuration of the platform: manifests in, one versioned snapshot out.

Owns the schema of the custom resources (`core/schema.py`) and the pure compiler that makes the services' snapshot of
them (`core/snapshot.py`). Never on the path of a request: services keep the last snapshot they saw.

    offline.py      watches folders of manifests and publishes the snapshot to Redis, for a stack without Kubernetes
"""
