"""The gateway: what clients talk to. Connections, authentication, validation, admission, and replay of answers.

It never decides an order and never keeps the only copy of anything: any gateway answers for any task, and one that dies takes
nothing with it but sockets. A prompt goes `submission -> limits -> cache -> router`, its text comes back as live frames and, when
those fall short, from the token log. Transports know `admission` and `reading`; `admission` knows `reading`; nobody knows a transport.

| where | answers |
|---|---|
| `core/submission.py`, `identity.py`, `task_id.py`, `estimates.py` | what was asked, by whom, what is its name, where will it stand? |
| `core/messages.py`, `sse.py`, `openai.py`, `grpc_requests.py` | in which words, on which transport? |
| `core/canonical.py`, `following.py`, `compaction.py` | when are two requests the same; whose log has the text; in which pieces? |
| `admission/doorkeeper.py` | keys, tickets, origins, handshakes: who comes in? |
| `admission/submitting.py`, `limiting.py`, `twins.py`, `core/limit_headers.py` | may it, is it known, is it committed? |
| `reading/readers.py`, `reader.py` | how do frames and log become one text with one end? |
| `reading/feeds.py`, `frames_servicer.py`, `replay.py` | who is told live, by whom; what does the log give? |
| `reading/mailbox.py` | text for transports that pull |
| `reading/tasks.py`, `places.py`, `departures.py` | what may be done with a task by its id; where does it wait; what if its reader leaves? |
| `http/native.py`, `task_stream.py`, `completions.py`, `openapi.py` | HTTP: tasks, models and tickets; SSE; OpenAI's shape; the document |
| `http/requests.py`, `responses.py`, `server.py` | what all routes share; the port itself |
| `http/page.py`, `page/` | the page |
| `websocket/door.py`, `session.py` | who gets a WebSocket; what is said on it |
| `websocket/connection.py`, `slim_connection.py`, `aiohttp_connection.py` | how is it carried, in two ways? |
| `websocket/gc_policy.py`, `core/ws_*.py`, `core/timer_wheel.py` | what the slim way is made of |
| `grpc/servicer.py`, `status.py` | gRPC for clients; how its calls fail |
| `ports.py`, `adapters/` | limiter, cache, router, signals, presence, tickets |
| `assembly.py`, `main.py`, `settings.py`, `incident.py` | how is it put together, started and stopped; what can be turned; what is said of a bug? |
"""
