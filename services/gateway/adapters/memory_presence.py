"""One gateway alone, for tests."""


class MemoryPresence:
    """`Presence` as the test says. `elsewhere`: readers of tasks at other gateways."""

    def __init__(self) -> None:
        self.elsewhere: dict[str, int] = {}
        self.count = 1

    async def readers(self, task: str) -> int:
        """Gateways in which a reader attached to the task."""
        return self.elsewhere.get(task, 0)

    async def gateways(self) -> int:
        """How many gateways live."""
        return self.count
