"""The rate limiter: may this request be admitted?

Owns the buckets, which live in Redis and move on the server's clock. A batch of requests is decided in one call; within it
the requests are served in order, each takes from all its buckets or from none. Never sees a prompt, and keeps nothing of
its own: any number of replicas decide alike.

    core of a decision        services/limits/core (shared with the gateways)
    ports.py                  BucketStore
    adapters/                 Redis (one script for a whole batch), memory
    servicer.py               millrace.limits.v1.RateLimiter
"""
