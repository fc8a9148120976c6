"""Limits: what the rate limiter and the gateways must agree on to the last unit.

Owns the arithmetic of a bucket and the names of the buckets. Knows no network and no Redis.

| module | what it gives |
|---|---|
| `core/gcra.py` | one bucket: take a cost now, or say when it would be admitted |
| `core/request.py` | one request over several buckets: all of them or none |
| `check.py` | the same in the words of `millrace.limits.v1`; which buckets a request of a tenant takes from |
| `local_limiter.py` | a gateway's own limiter for the time in which the service is away |
"""
