"""What the dispatcher must hear, said until it answers: ends until they are acknowledged, needs until they are granted."""

from collections.abc import Callable, Iterable
from typing import Final

from millrace.dispatch.v1.dispatch_pb2 import Credit, Finished, FinishedAck, Need, WorkerEvent
from services.worker.core.credits import CreditLedger

ASKED: Final = 10  # times for one need; a dispatcher that does not grant it has given the task to another


class Reports:
    """Events to the dispatcher that must not get lost. `send` may drop them: there may be nobody to listen."""

    def __init__(self, send: Callable[[WorkerEvent], None]) -> None:
        self._send = send
        self._needs: dict[str, Need] = {}
        self._asked: dict[str, int] = {}
        self._unacked: dict[str, Finished] = {}
        self._ledger = CreditLedger()

    @property
    def all_heard(self) -> bool:
        """Is every end acknowledged?"""
        return not self._unacked

    def again(self) -> Iterable[Finished]:
        """A new stream begins: what its Hello must repeat. Credits are void, needs are told after the Welcome."""
        self._ledger.forget()
        return self._unacked.values()

    def welcome(self) -> None:
        """Somebody listens."""
        for need in self._needs.values():
            self._send(WorkerEvent(need=need))

    def credit(self, free: int) -> None:
        """Raise the outstanding credits to the free slots."""
        if due := self._ledger.due(free):
            self._send(WorkerEvent(credit=Credit(slots=due)))

    def assigned(self, task: str) -> None:
        """An assignment came. It takes a credit unless it answers a need, and makes what was said of the task obsolete."""
        self._unacked.pop(task, None)
        if self._needs.pop(task, None) is None:
            self._ledger.used()

    def finished(self, finished: Finished) -> None:
        """An attempt is over."""
        self._needs.pop(finished.task, None)
        self._unacked[finished.task] = finished
        self._send(WorkerEvent(finished=finished))

    def acknowledged(self, ack: FinishedAck) -> bool:
        """The dispatcher heard the end of this attempt. False: it was obsolete."""
        finished = self._unacked.get(ack.task)
        if finished is None or finished.attempt != ack.attempt:
            return False
        del self._unacked[ack.task]
        return True

    def need(self, need: Need) -> None:
        """Redis forgot, and the text is here."""
        self._needs[need.task] = need
        self._asked.setdefault(need.task, 1)
        self._send(WorkerEvent(need=need))

    def needless(self, task: str) -> None:
        """The text is not here any more."""
        self._needs.pop(task, None)

    def ask_again(self) -> list[str]:
        """Repeat the needs that were not granted; call it once per heartbeat. Returns those that never will be."""
        self._asked = {task: self._asked[task] + 1 for task in self._needs}
        given_up = [task for task, asked in self._asked.items() if asked > ASKED]
        for task in given_up:
            del self._needs[task]
        self.welcome()
        return given_up
