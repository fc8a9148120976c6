"""One reader of one task: its cursor, its sink, its feed."""

from typing import Literal, Protocol

from millrace.dispatch.v1.dispatch_pb2 import TaskStatus
from millrace.frames.v1.frames_pb2 import Frame
from millrace.task.v1.task_pb2 import Outcome
from services.chassis.clock import monotonic
from services.tasklog.core.reading import Cursor


class Sink(Protocol):
    """Where a reader's text goes: a session, an SSE response, a gRPC stream. None of the methods waits."""

    @property
    def writable(self) -> bool:
        """False above one high-water mark; the sink calls `Readers.resume` when it drained."""
        ...

    def on_text(self, reader: "Reader", gen: int, offset: int, text: str) -> None:
        """Text; `offset` is after it."""
        ...

    def on_restarted(self, reader: "Reader", gen: int) -> None:
        """The text so far was lost: from offset 0 again."""
        ...

    def on_end(self, reader: "Reader", gen: int, offset: int, outcome: Outcome) -> None:
        """The end; the reader is closed."""
        ...

    def on_status(self, reader: "Reader", status: TaskStatus) -> None:
        """Where the task stands in its queue."""
        ...

    def on_gone(self, reader: "Reader", code: Literal["unknown", "expired"]) -> None:
        """There is nothing to read any more; the reader is closed."""
        ...


class Feed:
    """What this process hears of one task: the handle in its route, and who listens."""

    __slots__ = ("attached", "handle", "readers", "task", "wanted", "watched")

    def __init__(self, task: str, handle: int) -> None:
        self.task = task
        self.handle = handle
        self.readers: tuple[Reader, ...] = ()
        self.wanted = False  # the route shall stand in Redis, not only in the task's record
        self.attached = False  # it does
        self.watched = ""  # the pool whose owner was asked for the task's place


class Reader:
    """One reader of one task. `tag` belongs to the sink."""

    __slots__ = (
        "again",
        "cursor",
        "early",
        "feed",
        "heard",
        "leader",
        "missing_since",
        "open",
        "paused",
        "pending",
        "reading",
        "shown",
        "sink",
        "submitted_at",
        "tag",
    )

    def __init__(self, feed: Feed, sink: Sink, cursor: Cursor, *, held: bool) -> None:
        self.feed = feed
        self.leader: Feed | None = None  # of the twin whose text this task shares
        self.sink = sink
        self.cursor = cursor
        self.early: list[tuple[Feed, Frame]] | None = [] if held else None  # frames that overtook the acknowledgment
        self.open = True
        self.paused = False  # the sink is full
        self.reading = self.again = False  # a read of the log is under way; another shall follow
        self.shown = False
        self.pending: list[str] | None = None  # text that waits for more
        self.submitted_at = 0.0  # 0: not submitted here
        self.heard = monotonic()
        self.missing_since = 0.0
        self.tag: object = None

    @property
    def task(self) -> str:
        """The task's id."""
        return self.feed.task
