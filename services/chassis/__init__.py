"""What every service is built on: life cycle, settings, transports, clocks. No module here knows a prompt, a bucket or a pool.

| module | what it gives |
|---|---|
| `lifecycle` | start in order, report readiness, leave politely |
| `settings` | environment variables to a frozen struct, each field with unit and reason |
| `errors` | the one table of error codes on all transports |
| `metrics` | every metric by name |
| `admin` | /healthz, /readyz, /metrics on a port of its own |
| `grpc_server` | gRPC with health and reflection, for clients |
| `framing`, `framed_client`, `framed_server` | messages over a plain connection, between services |
| `batched`, `batched_server`, `gather` | many calls in one message |
| `resp` | one pipelined Redis connection that knows the run it talks to |
| `kafka` | a producer on the event loop |
| `configuration` | the published snapshot, pushed |
| `clock`, `deadline`, `backoff`, `pace`, `loop_watch` | time |
| `collector` | when Python's cycle collector runs |
"""
