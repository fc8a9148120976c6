"""Where a reader is, and what of the next event is new to it."""

from dataclasses import dataclass

from services.client.core.events import Delta, Done, Event, Restarted


class GapError(Exception):
    """Text is missing before this event: read again from the cursor."""


@dataclass(slots=True)
class ReaderCursor:
    """The text that was seen, by name (`gen`, empty before the first) and length in bytes.

    >>> cursor = ReaderCursor()
    >>> cursor.take(Delta(task="t", gen="g", offset=5, text="mills"))
    Delta(task='t', gen='g', offset=5, text='mills')
    >>> cursor.take(Delta(task="t", gen="g", offset=7, text="lstu"))  # bytes 3 to 7: two are known
    Delta(task='t', gen='g', offset=7, text='tu')
    """

    gen: str = ""
    offset: int = 0

    def take(self, event: Event) -> Event | None:
        """The event without what was seen before, None if nothing of it is new. Raises GapError."""
        match event:
            case Restarted(gen=gen):
                self.gen, self.offset = gen, 0
            case Delta(gen=gen, offset=end, text=text):
                data = text.encode()
                start = end - len(data)
                if gen != self.gen and (self.gen or self.offset):
                    raise GapError(f"text of {gen} after that of {self.gen} without a word")
                if start > self.offset:
                    raise GapError(f"bytes {self.offset} to {start} are missing")
                known, self.gen = self.offset - start, gen
                if known >= len(data):
                    return None
                self.offset = end
                if known:
                    return Delta(task=event.task, gen=gen, offset=end, text=data[known:].decode())
            case Done(gen=gen, offset=end):
                if end != self.offset and (not gen or gen == self.gen or not self.gen):
                    raise GapError(f"the answer ends at {end}, seen are {self.offset}")
        return event
