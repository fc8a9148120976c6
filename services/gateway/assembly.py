"""The parts of a gateway, put together from its ports: what `main.py` runs on real adapters and tests run in memory."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from services.gateway.admission.doorkeeper import Doorkeeper
from services.gateway.admission.limiting import Limiting
from services.gateway.admission.submitting import Submitting
from services.gateway.core.identity import Directory
from services.gateway.core.messages import Hello
from services.gateway.grpc.servicer import GatewayInference
from services.gateway.http import openapi, page
from services.gateway.http.completions import ChatCompletions
from services.gateway.http.native import NativeApi
from services.gateway.http.requests import MAX_BODY
from services.gateway.http.responses import errors
from services.gateway.http.task_stream import TaskStream
from services.gateway.ports import (
    Accept,
    Check,
    Lookup,
    Presence,
    Signals,
    Store,
    TicketStore,
)
from services.gateway.reading.departures import Departures
from services.gateway.reading.mailbox import Mailboxes
from services.gateway.reading.places import Places
from services.gateway.reading.readers import Readers
from services.gateway.reading.tasks import Tasks
from services.gateway.settings import GatewaySettings
from services.gateway.websocket.connection import ServeWebSocket, WebSocketLimits
from services.gateway.websocket.door import WebSocketDoor
from services.gateway.websocket.session import SessionContext
from services.limits.core.gcra import Limit
from services.tasklog.ports import TaskControl, TokenLog


@dataclass(frozen=True, slots=True)
class World:
    """What a gateway needs. `lookup` and `store` are None where there is no cache."""

    directory: Callable[[], Directory]
    token_log: TokenLog
    control: TaskControl
    signals: Signals
    presence: Presence
    tickets: TicketStore
    check: Check
    accept: Accept
    lookup: Lookup | None
    store: Store | None
    gateways: Callable[[], int] = lambda: 1
    busy: Callable[[], float] = lambda: 0.0


class Gateway:
    """One gateway process without its sockets. `address` and `boot` name its frames server in routes."""

    def __init__(
        self,
        settings: GatewaySettings,
        world: World,
        *,
        secret: bytes,
        address: str,
        boot: int,
        serve_websocket: ServeWebSocket,
    ) -> None:
        self.readers = Readers(
            world.token_log, world.control, world.signals, address=address, boot=boot, busy=world.busy
        )
        self.departures = Departures(self.readers, world.token_log, world.presence, world.signals)
        self.places = Places(world.signals, self.readers.on_status)
        tasks = Tasks(
            self.readers, world.token_log, world.control, self.departures, seen_retention_s=settings.seen_retention_s
        )
        submitting = Submitting(
            secret=secret,
            directory=world.directory,
            limiting=Limiting(world.check, budget_s=settings.limiter_budget_s, gateways=world.gateways),
            lookup=world.lookup,
            store=world.store,
            accept=world.accept,
            readers=self.readers,
            signals=world.signals,
            departures=self.departures,
            cache_budget_s=settings.cache_budget_s,
            accept_s=settings.accept_s,
        )
        hello = Hello(
            gateway=settings.name or address,
            heartbeat_s=settings.heartbeat_s,
            max_in_flight=settings.max_in_flight,
            max_frame_bytes=settings.max_frame_bytes,
        )
        self.sessions = SessionContext(hello=hello, submitting=submitting, tasks=tasks, readers=self.readers)
        handshakes = Limit(settings.handshakes_per_s, 1.0, settings.handshake_burst)
        doorkeeper = Doorkeeper(world.directory, world.tickets, handshakes)
        native = NativeApi(
            directory=world.directory, doorkeeper=doorkeeper, submitting=submitting, tasks=tasks, places=self.places
        )
        websocket_limits = WebSocketLimits(
            max_frame_bytes=settings.max_frame_bytes,
            high_water=settings.high_water_bytes,
            low_water=settings.high_water_bytes // 4,
            heartbeat_s=settings.heartbeat_s,
        )
        websocket = WebSocketDoor(doorkeeper, self.sessions, serve_websocket, websocket_limits)
        self.mailboxes = Mailboxes(self.readers)
        stream = TaskStream(doorkeeper, tasks, self.mailboxes, heartbeat_s=settings.heartbeat_s)
        chat = ChatCompletions(doorkeeper, submitting, tasks, self.mailboxes, heartbeat_s=settings.heartbeat_s)
        self.app = web.Application(middlewares=[errors], client_max_size=MAX_BODY)
        self.app.add_routes(
            [*websocket.routes(), *native.routes(), *stream.routes(), *chat.routes(), *openapi.routes(), *page.routes()]
        )
        self.inference = GatewayInference(doorkeeper, submitting, tasks, self.places, self.mailboxes)

    def leave(self, reconnect_s: float) -> None:
        """Send away who can go on elsewhere, each to come back within `reconnect_s`; no disconnect policy fires from now on."""
        self.departures.leaving = True
        for session in tuple(self.sessions.sessions):
            session.go_away(random.uniform(0.1, reconnect_s))  # noqa: S311 - jitter
        self.mailboxes.leave(all_of_them=False)
