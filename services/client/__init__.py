"""The Python client: submit a prompt, read its answer, go on after any break.

Own: the resuming of a reader at its cursor, on three transports and any number of gateways. Never: server side.

    from services.client import Client, Delta

    async with Client("http://127.0.0.1:8080", key) as client:
        async for event in client.stream("Once upon a time", model="tiny"):
            if isinstance(event, Delta):
                print(event.text, end="", flush=True)

client.py        the asynchronous client; sync_client.py the same with plain calls
core/events.py   the vocabulary; core/cursor.py what of an event is new
errors.py        one class per code of the errors table
ports.py         what a transport is; adapters/ WebSocket, HTTP with server-sent events, gRPC
"""

from services.client.client import Answer, Client, Patience
from services.client.core.events import Ack, Delta, Done, Event, Restarted, Status, TaskError, TaskView, Timings, Usage
from services.client.errors import MillraceError, TaskEndedError
from services.client.sync_client import SyncClient

__all__ = [
    "Ack",
    "Answer",
    "Client",
    "Delta",
    "Done",
    "Event",
    "MillraceError",
    "Patience",
    "Restarted",
    "Status",
    "SyncClient",
    "TaskEndedError",
    "TaskError",
    "TaskView",
    "Timings",
    "Usage",
]
