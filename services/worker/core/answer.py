"""The text of one task as its worker holds it: what is logged, what is not yet, how it ended."""

from millrace.task.v1.task_pb2 import Outcome
from services.tasklog.core.entries import Delta, Terminal


class Answer:
    """One text, written by one worker under one attempt after another.

    Text is taken piece by piece and logged in larger deltas. `delta()` may be asked for again until `written()` says that
    it is in the log: it then grows by what was taken since, which readers slice.

    >>> answer = Answer(attempt=7)
    >>> answer.begin(gen=7)
    >>> answer.take("Hel"), answer.take("lo")
    (None, None)
    >>> delta = answer.delta()
    >>> delta.start, delta.end, delta.text
    (0, 5, 'Hello')
    >>> answer.written(delta)
    >>> answer.logged, answer.delta()
    (5, None)
    """

    __slots__ = ("_fresh", "_kept", "attempt", "gen", "logged", "outcome", "run_id", "tokens")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.gen = 0  # 0: not begun
        self.run_id = ""  # the Redis run under which the present attempt logs
        self.logged = 0  # bytes of UTF-8 that are in the log
        self.tokens = 0  # completion tokens of the whole text
        self.outcome: Outcome | None = None  # once set, no text is taken any more
        self._kept: list[str] = []
        self._fresh: list[str] = []

    def begin(self, gen: int, logged: str = "", tokens: int = 0) -> None:
        """Begin the text `gen`, or go on after what an earlier attempt logged of it."""
        self.gen, self.tokens = gen, tokens
        self.logged = len(logged.encode())
        self._kept = [logged] if logged else []
        self._fresh = []

    def take(self, text: str) -> None:
        """Append to the text."""
        if text and self.outcome is None:
            self._fresh.append(text)

    def delta(self) -> Delta | None:
        """What is not logged yet, as one entry; None when there is nothing."""
        fresh = self._fresh
        if not fresh:
            return None
        if len(fresh) > 1:
            fresh[:] = ["".join(fresh)]
        text = fresh[0]
        size = len(text) if text.isascii() else len(text.encode())
        return Delta(self.attempt, self.gen, self.logged, self.logged + size, text)

    def nothing(self) -> Delta:
        """The empty delta at the end of what is logged: for a text that ended without a word."""
        return Delta(self.attempt, self.gen, self.logged, self.logged, "")

    def written(self, delta: Delta) -> None:
        """The newest delta asked for is in the log."""
        self._kept.append(delta.text)
        del self._fresh[0]
        self.logged = delta.end

    def terminal(self, end: int) -> Terminal:
        """The end at offset `end`, where the last delta ends. Only with an outcome."""
        assert self.outcome is not None
        return Terminal(self.attempt, self.gen, end, self.outcome)

    def log_again(self) -> None:
        """Redis forgot: the next delta is the whole text from offset 0."""
        self._fresh = self._kept + self._fresh
        self._kept = []
        self.logged = 0

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._kept) + "".join(self._fresh)
