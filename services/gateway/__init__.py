"""The gateway: what clients talk to. Connections, authentication, validation, admission, and replay of answers.

It never decides an order and never keeps the only copy of anything: any gateway answers for any task, and one that dies takes
nothing with it but sockets. A prompt goes `submission -> limits -> cache -> router`, its text comes back as live frames and, when
those fall short, from the token log.

| module | answers |
|---|---|
| `core/submission.py`, `identity.py`, `task_id.py` | what was asked, by whom, and what is its name? |
| `core/messages.py`, `sse.py`, `openai.py`, `grpc_requests.py` | in which words, on which transport? |
| `submitting.py`, `limiting.py` | may it, is it known, is it committed? |
| `readers.py`, `reader.py` | how do frames and log become one text with one end? |
| `feeds.py`, `replay.py`, `core/following.py`, `core/compaction.py` | who is told live; what does the log give? |
| `tasks.py`, `places.py`, `departures.py` | what may be done with a task by its id; what if its reader leaves? |
| `session.py`, `websocket.py`, `slim_websocket.py`, `core/ws_*.py` | WebSocket: the session, and two ways to carry it |
| `http.py`, `task_stream.py`, `completions.py`, `openapi.py` | HTTP: tasks, SSE, OpenAI's shape, the document |
| `mailbox.py` | text for transports that pull |
| `servicer.py`, `frames_servicer.py` | gRPC for clients; frames from workers |
| `doorkeeper.py` | keys, tickets, origins, handshakes |
| `assembly.py`, `main.py` | how is it put together, started and stopped? |
"""
