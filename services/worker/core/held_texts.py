"""Texts of running and just-finished tasks: what this worker can log again when Redis forgets.

A text is held from the first attempt on until the dispatcher has acknowledged its end and the commit horizon has passed. Only
then is the end durable. It may be logged again only under an attempt that followed this worker's own: with any other in
between, someone else may have written, and this text is worth nothing any more.
"""

from itertools import takewhile

from services.worker.core.answer import Answer


class HeldTexts:
    """Answers by task, with the instant at which each may be forgotten."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        self._until: dict[str, float] = {}  # only of those that ended; in the order of their ends

    def __len__(self) -> int:
        return len(self._answers)

    def hold(self, task: str, answer: Answer) -> None:
        """Hold the text of a task that starts, in place of any other."""
        self._answers[task] = answer
        self._until.pop(task, None)

    def grant(self, task: str, attempt: int, previous: int) -> Answer | None:
        """May `attempt` go on with the held text? Yes if the attempt before it was the holder's; else the text is dropped."""
        answer = self._answers.get(task)
        if answer is None:
            return None
        if answer.attempt != previous:
            self.drop(task)
            return None
        answer.attempt = attempt
        self._until.pop(task, None)
        return answer

    def keep_until(self, task: str, at: float) -> None:
        """Its end was acknowledged: forget it at the instant `at`."""
        if task in self._answers:
            self._until.pop(task, None)
            self._until[task] = at

    def drop(self, task: str) -> None:
        """Forget it now."""
        self._answers.pop(task, None)
        self._until.pop(task, None)

    def forget(self, now: float) -> list[str]:
        """Drop what may be forgotten by `now`; its tasks."""
        gone = list(takewhile(lambda task: self._until[task] <= now, self._until))
        for task in gone:
            self.drop(task)
        return gone

    def all(self) -> list[tuple[str, Answer]]:
        """Every (task, answer) held."""
        return list(self._answers.items())
