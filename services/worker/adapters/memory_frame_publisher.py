"""Live frames in memory, for tests."""

from millrace.frames.v1.frames_pb2 import FrameBatch


class MemoryFramePublisher:
    """`FramePublisher` in a list. Addresses in `away` behave as gateways that are gone."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, FrameBatch]] = []
        self.away: set[str] = set()

    def push(self, address: str, batch: FrameBatch) -> None:
        """Keep a copy of the batch."""
        if address not in self.away:
            kept = FrameBatch()
            kept.CopyFrom(batch)
            self.sent.append((address, kept))
